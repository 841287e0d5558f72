"""Whom an app trusts to vouch for enclaves: what it pins, and ships with its own release."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

from device_runtime.attestation_provider import (
    MEASUREMENT_BYTES,
    InvalidAttestationTrust,
    Verifier,
)

VERIFIER_GROUP = "flint.attestation_verifiers"
"""Entry points of this group are called with a provider's options and return its `Verifier`."""

DEFAULT_MAX_AGE_S = 300.0

_MOST_FILE_BYTES = 64 * 1024
_MOST_MEASUREMENTS = 256
_MOST_AGE_S = 24 * 3600.0
_KNOWN = {"max_age_s", "measurements", "providers"}


def _software_root(options: Mapping[str, object]) -> Verifier:
    from device_runtime.attestation_software import SoftwareRootVerifier

    return SoftwareRootVerifier.from_options(options)


def _aws_nitro(options: Mapping[str, object]) -> Verifier:
    from device_runtime.attestation_nitro import NitroVerifier

    return NitroVerifier.from_options(options)


# By themselves, so that no other package of an app can take their names.
_BUILT_IN: dict[str, Callable[[Mapping[str, object]], Verifier]] = {
    "software_root": _software_root,
    "aws_nitro": _aws_nitro,
}


@dataclass(frozen=True)
class AttestationTrust:
    """What an app pins.

    Attributes:
        providers: Per provider its options, foremost its roots. Others are trusted in nothing.
        measurements: The app's own list of enclaves, SHA-256 each, held beside every job's list;
            None where it leaves that to the job.
        max_age_s: How old evidence may be, seconds.
    """

    providers: Mapping[str, Mapping[str, object]]
    measurements: tuple[bytes, ...] | None = None
    max_age_s: float = DEFAULT_MAX_AGE_S
    _verifiers: dict[str, Verifier] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.providers:
            raise InvalidAttestationTrust("providers is empty, so no enclave could be trusted")
        if not 0 < self.max_age_s <= _MOST_AGE_S:
            raise InvalidAttestationTrust(
                f"max_age_s is {self.max_age_s}; it must be above 0 and at most {_MOST_AGE_S:.0f}"
            )
        if self.measurements is not None:
            _require_measurements(self.measurements)
        verifiers = {name: _verifier(name, options) for name, options in self.providers.items()}
        object.__setattr__(self, "_verifiers", verifiers)

    def verifier(self, provider: str) -> Verifier | None:
        """The verifier of a provider this app trusts, else None."""
        return self._verifiers.get(provider)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file an app ships (`docs/attestation.md` shows one).

        Raises:
            InvalidAttestationTrust: If it cannot be read, is beyond 64 KiB, or `from_json` refuses
                it; the sentence is led in by the path.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidAttestationTrust(f"{path}: {error.strerror or error}") from error
        try:
            return cls.from_json(data)
        except InvalidAttestationTrust as error:
            raise InvalidAttestationTrust(f"{path}: {error.sentence}") from error

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read ``{"providers": {name: options}, "measurements": [hex], "max_age_s": 300}``.

        Raises:
            InvalidAttestationTrust: If it is anything else, trusts nobody, names an unknown key or
                provider; what is wrong, and where.
        """
        if len(data) > _MOST_FILE_BYTES:
            raise InvalidAttestationTrust(f"larger than {_MOST_FILE_BYTES} bytes")
        try:
            read = json.loads(data, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise InvalidAttestationTrust(f"not JSON: {error!s:.200}") from error
        if not isinstance(read, dict):
            raise InvalidAttestationTrust("must be a JSON object with providers")
        if unknown := sorted(set(read) - _KNOWN):
            raise InvalidAttestationTrust(
                f"{unknown[0]!r:.80} is not a known key. Known keys: {', '.join(sorted(_KNOWN))}"
            )
        providers = read.get("providers")
        if not isinstance(providers, dict) or not all(
            isinstance(options, dict) for options in providers.values()
        ):
            raise InvalidAttestationTrust("providers must be an object: name to options")
        max_age_s = read.get("max_age_s", DEFAULT_MAX_AGE_S)
        if isinstance(max_age_s, bool) or not isinstance(max_age_s, int | float):
            raise InvalidAttestationTrust(f"max_age_s is {max_age_s!r:.80}, not a number")
        measurements = read.get("measurements")
        return cls(
            providers=providers,
            measurements=None if measurements is None else _measurements(measurements),
            max_age_s=max_age_s,
        )

    def to_json(self) -> str:
        """The file's text, indented; `from_json` reads it back."""
        pinned: dict[str, Any] = {"max_age_s": self.max_age_s}
        if self.measurements is not None:
            pinned["measurements"] = [measurement.hex() for measurement in self.measurements]
        pinned["providers"] = {name: dict(options) for name, options in self.providers.items()}
        return json.dumps(pinned, indent=2, sort_keys=True) + "\n"


def _verifier(provider: str, options: Mapping[str, object]) -> Verifier:
    make = _BUILT_IN.get(provider)
    if make is None:
        others = {entry.name: entry for entry in entry_points(group=VERIFIER_GROUP)}
        if provider not in others:
            known = sorted({*_BUILT_IN, *others})
            raise InvalidAttestationTrust(
                f"providers names {provider!r:.80}, which is not installed. Known: "
                f"{', '.join(known)}"
            )
        make = others[provider].load()
    verifier = make(options)
    if verifier.provider != provider:
        raise InvalidAttestationTrust(
            f"the verifier installed as {provider!r:.80} is one of {verifier.provider!r:.80}"
        )
    return verifier


def _measurements(read: object) -> tuple[bytes, ...]:
    if not isinstance(read, list) or not all(isinstance(value, str) for value in read):
        raise InvalidAttestationTrust("measurements must be a list of hexadecimal SHA-256 values")
    try:
        return tuple(bytes.fromhex(value) for value in read)
    except ValueError as error:
        raise InvalidAttestationTrust(f"measurements: {error}") from error


def _require_measurements(measurements: tuple[bytes, ...]) -> None:
    if not 0 < len(measurements) <= _MOST_MEASUREMENTS:
        raise InvalidAttestationTrust(
            f"measurements has {len(measurements)} values; leave it out, or name 1 to "
            f"{_MOST_MEASUREMENTS}"
        )
    for place, measurement in enumerate(measurements):
        if len(measurement) != MEASUREMENT_BYTES:
            raise InvalidAttestationTrust(
                f"measurements[{place}] is {len(measurement)} bytes long; a SHA-256 has "
                f"{MEASUREMENT_BYTES}, {2 * MEASUREMENT_BYTES} hexadecimal digits"
            )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("an object has a key twice")
    return read
