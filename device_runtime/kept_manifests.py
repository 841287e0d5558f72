"""The last good feature manifests on a device's disk, so that it can do without a network."""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from device_runtime.feature_manifest import FeatureManifest, InvalidFeatureManifest
from device_runtime.manifest_parser import parse_manifest

_NAME = re.compile(r"([a-z][a-z0-9_]{0,62})\.([0-9a-f]{64})\.([0-9a-f]{64})\.json")
_MOST_KEPT = 16


@dataclass(frozen=True, slots=True)
class KeptManifest:
    """A manifest, and the digest of the bytes it came in."""

    manifest: FeatureManifest
    sha256: bytes


class KeptManifests:
    """One file a service and contract; its name holds its digest, so a torn one is not used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, service: str, contract_sha256: bytes) -> KeptManifest | None:
        """The manifest kept last of a service under a contract; empty: under any."""
        wanted = f"{service}.{contract_sha256.hex()}."
        if not contract_sha256:
            wanted = f"{service}."
        found = (_read(path) for path in self._paths() if path.name.startswith(wanted))
        return next((each for each in found if each is not None), None)

    def all(self) -> list[FeatureManifest]:
        """The manifest kept last of every service, the newest first."""
        found: dict[str, FeatureManifest] = {}
        for path in self._paths():
            service = path.name.partition(".")[0]
            kept = None if service in found else _read(path)
            if kept is not None:
                found[service] = kept.manifest
        return list(found.values())

    def keep(self, manifest: FeatureManifest, content: bytes) -> None:
        """Keep a manifest in place of the one of its service and contract; of all, the newest.

        Raises:
            OSError: If there is no room for it.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stem = f"{manifest.service}.{manifest.contract_sha256.hex()}"
        path = self._folder / f"{stem}.{hashlib.sha256(content).hexdigest()}.json"
        draft = self._folder / f".{stem}.{os.getpid()}.new"
        draft.write_bytes(content)
        draft.replace(path)
        kept = [each for each in self._paths() if each != path]
        former = [each for each in kept if each.name.startswith(f"{stem}.")]
        others = [each for each in kept if each not in former]
        for each in (*former, *others[_MOST_KEPT - 1 :]):
            each.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Files, the newest first."""
        if not self._folder.is_dir():
            return []
        found = [each for each in self._folder.iterdir() if _NAME.fullmatch(each.name)]
        return sorted(found, key=lambda each: each.stat().st_mtime_ns, reverse=True)


def _read(path: Path) -> KeptManifest | None:
    """What a file holds; None if it is torn, or of a form this runtime does not read."""
    with contextlib.suppress(OSError, InvalidFeatureManifest):
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        if path.name.split(".")[2] == digest.hex():
            return KeptManifest(parse_manifest(content), digest)
    return None
