"""What a stock SuperNode runs; it needs `pip install flint-on-flower[device-flower]`."""

from device_runtime.client_app import app

__all__ = ["app"]
