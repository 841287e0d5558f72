"""What makes an enclave's attestation documents, and how one is found by its provider's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from device_runtime.errors import FlintError

ATTESTER_GROUP = "flint.attesters"
"""Entry points of this group are called with an `AttesterSettings` and return an `Attester`."""


class UnknownAttester(FlintError):
    """No attester of that name is built in or installed, or the one installed cannot be used."""

    code = "FLN-1814"


class Attester(Protocol):
    """Vouches for this process, in documents that a device's `Verifier` reads."""

    @property
    def provider(self) -> str:
        """As `Evidence.provider` names it."""
        ...

    @property
    def measurement(self) -> bytes:
        """The SHA-256 that its documents state, as allow-lists name this enclave."""
        ...

    def document(self, nonce: bytes, user_data: bytes) -> bytes:
        """A new document over a device's nonce and the SHA-256 of the serialised `EnclaveKey`.

        Raises:
            FlintError: If the provider gives none.
        """
        ...


@dataclass(frozen=True, slots=True)
class AttesterSettings:
    """What an attester is made of.

    Attributes:
        measured: `measurement.measure` of this install, for providers without a measurement of
            their own; hardware measures by itself.
        secrets: Folder for what only the server's user may read.
        options: The provider's own, from the enclave's configuration.
    """

    measured: bytes
    secrets: Path
    options: Mapping[str, str]


def _software_root(settings: AttesterSettings) -> Attester:
    from server.secure_aggregation.attesters.software import SoftwareAttester, SoftwareRoot

    root = SoftwareRoot.load_or_create(settings.secrets / "software_root.key")
    return SoftwareAttester(root, settings.measured)


def _aws_nitro(settings: AttesterSettings) -> Attester:  # noqa: ARG001 - hardware measures itself
    from server.secure_aggregation.attesters.nitro import NitroAttester, open_security_module

    return NitroAttester(open_security_module())


# By themselves, so that no other installed package can take their names.
_BUILT_IN: dict[str, Callable[[AttesterSettings], Attester]] = {
    "software_root": _software_root,
    "aws_nitro": _aws_nitro,
}


def load_attester(provider: str, settings: AttesterSettings) -> Attester:
    """Make the attester of ``provider``.

    Raises:
        UnknownAttester: If there is none, or the installed one is of another provider.
        FlintError: If it cannot attest here; the attester's own sentence.
    """
    make = _BUILT_IN.get(provider)
    if make is None:
        others = {entry.name: entry for entry in entry_points(group=ATTESTER_GROUP)}
        if provider not in others:
            raise UnknownAttester(
                f"{provider!r} is no attester. Known: {', '.join(sorted({*_BUILT_IN, *others}))}"
            )
        make = others[provider].load()
    attester = make(settings)
    if attester.provider != provider:
        raise UnknownAttester(
            f"the attester installed as {provider!r} makes documents of {attester.provider!r}"
        )
    return attester
