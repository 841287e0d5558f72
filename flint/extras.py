"""Which extra brings what, told when it is missing."""

import importlib.util

from device_runtime.errors import FlintError

_EXTRAS = {
    "tensorflow": "modeling",
    "torch": "modeling",
    "keras": "modeling",
    "sklearn": "demo",
    "scipy": "demo",
    "matplotlib": "simulation",
    "fastapi": "console",
    "jinja2": "console",
    "uvicorn": "console",
}


class MissingExtra(FlintError):
    """A command needs packages of an extra that is not installed."""

    code = "FLN-1251"


def missing_package(module: str, purpose: str) -> MissingExtra:
    """The mistake of not having installed a package; names the extra that brings it."""
    extra = _EXTRAS.get(module, "server")
    return MissingExtra(
        f"{purpose} needs {module}, which is not installed; run `make setup`, or "
        f"`pip install 'flint-on-flower[{extra}]'`"
    )


def require(module: str, *, purpose: str) -> None:
    """Check that a package is installed before it is needed.

    Raises:
        MissingExtra: If not; says which extra brings it.
    """
    if importlib.util.find_spec(module) is None:
        raise missing_package(module, purpose)
