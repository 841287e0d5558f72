"""What of an enclave's configuration is part of its measured identity."""

from collections.abc import Iterable, Mapping

from device_runtime.errors import FlintError

PROTOCOL = "flint.enclave.v1"


class InvalidEnclaveOption(FlintError):
    """A provider's option that is not ``NAME=VALUE``."""

    code = "FLN-1816"


def enclave_configuration(provider: str, options: Mapping[str, str]) -> dict[str, str]:
    """Configuration as it is measured: the same on every machine that runs the same enclave.

    Args:
        provider: Who vouches for it.
        options: The provider's own.
    """
    return {"protocol": PROTOCOL, "provider": provider} | {
        f"option {name}": value for name, value in options.items()
    }


def options_of(pairs: Iterable[str]) -> dict[str, str]:
    """Options from ``NAME=VALUE``.

    Raises:
        InvalidEnclaveOption: If one is none.
    """
    options = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found or not name:
            raise InvalidEnclaveOption(
                f"{pair!r} is no option of an attestation provider; write NAME=VALUE"
            )
        options[name] = value
    return options
