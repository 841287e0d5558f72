"""The model versions that tasks may train on, and whose updates may still count."""


class LiveModels:
    """Versions of the open job with the digests of their parameters.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}
        self._oldest = 0

    @property
    def oldest(self) -> int:
        """Updates of older base versions are late."""
        return self._oldest

    @property
    def newest(self) -> int:
        """The newest version; 0 without any."""
        return max(self._digests, default=0)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def add(self, version: int, parameters_sha256: bytes, oldest_live: int) -> None:
        """A version may be trained on; older than ``oldest_live`` none may any more."""
        self._digests[version] = parameters_sha256
        self._oldest = max(self._oldest, oldest_live)
        for old in [v for v in self._digests if v < self._oldest]:
            del self._digests[old]

    def digest(self, version: int) -> bytes | None:
        """Of a version's parameters, if it is live and known here."""
        return self._digests.get(version)

    def is_live(self, version: int) -> bool:
        """Whether an update of this base version may count."""
        return bool(self._digests) and version >= self._oldest

    def clear(self) -> None:
        """The job is over."""
        self._digests.clear()
        self._oldest = 0
