"""Manifests that were made, so that the many devices of one kind share one."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from feature_catalog.on_device import DeviceProfile
from feature_catalog.service.device_manifest import ManifestMaker
from feature_catalog.service.served_contracts import ServedContract

KNOWN_FOR_S = 30.0
"""For how long a file that was there is taken to be there still."""

_MOST_BYTES = 64 * 2**20
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class MadeManifest:
    """A manifest as it is sent."""

    content: bytes
    sha256: bytes


class StoredFiles:
    """Remembers which files are there: a blob store may be far away. Safe for several threads."""

    def __init__(
        self, is_stored: Callable[[bytes], bool], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Assemble.

        Args:
            is_stored: Whether a file, by its digest, is there.
            clock: Seconds, rising.
        """
        self._is_stored = is_stored
        self._clock = clock
        self._lock = threading.Lock()
        self._seen_s: OrderedDict[bytes, float] = OrderedDict()

    def __call__(self, sha256: bytes) -> bool:
        """Whether it is there; one that was not a moment ago may be now."""
        now_s = self._clock()
        with self._lock:
            seen_s = self._seen_s.get(sha256)
        if seen_s is not None and now_s - seen_s < KNOWN_FOR_S:
            return True
        if not self._is_stored(sha256):
            return False
        with self._lock:
            self._seen_s[sha256] = now_s
            if len(self._seen_s) > _MOST_KNOWN:
                self._seen_s.popitem(last=False)
        return True


class MadeManifests:
    """Makes a manifest once for each contract, profile and set of files that are there."""

    def __init__(self, maker: ManifestMaker, *, max_bytes: int = _MOST_BYTES) -> None:
        """Assemble.

        Args:
            maker: Makes them.
            max_bytes: Of all that are kept; the least recently used goes first.
        """
        self._maker = maker
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, MadeManifest] = OrderedDict()

    def get(self, contract: ServedContract, profile: DeviceProfile) -> MadeManifest:
        """A device's manifest; raises what `ManifestMaker.make` raises."""
        there = frozenset(filter(self._maker.is_stored, contract.device_assets))
        key = (contract.sha256, profile, there)
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                self._made.move_to_end(key)
                return made
        manifest = self._maker.make(contract, profile)
        made = MadeManifest(manifest.to_json().encode(), manifest.sha256())
        with self._lock:
            self._made[key] = made
            total = sum(len(each.content) for each in self._made.values())
            while total > self._max_bytes and len(self._made) > 1:
                _, gone = self._made.popitem(last=False)
                total -= len(gone.content)
        return made
