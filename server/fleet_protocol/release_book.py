"""Which gateway's part of which release was asked for, answered, and committed."""

from collections.abc import Iterable

from server.fleet_protocol import fleet_pb2 as pb

_REMEMBERED_COMMITS = 1024


class ReleaseBook:
    """The releases of one job under one coordinator.

    A part is one gateway's share of a release, named by both. It is undecided from the moment it
    is asked for until it is committed, or left out because its gateway was lost: a gateway that
    comes back keeps frozen what is undecided, forgets what is committed and thaws all else.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self, committed: Iterable[str] = ()) -> None:
        self._committed = list(committed)
        self._parts: dict[str, dict[str, str]] = {}
        self._answers: dict[str, pb.Partial] = {}

    @property
    def undecided(self) -> tuple[str, ...]:
        """Parts that may still become part of a version."""
        return tuple(part for parts in self._parts.values() for part in parts.values())

    def undecided_at(self) -> set[str]:
        """Boot ids of the gateways that gave a part which may still become part of a version."""
        return {boot_id for parts in self._parts.values() for boot_id in parts}

    @property
    def committed(self) -> tuple[str, ...]:
        """Parts that are in a stored version; the newest of them."""
        return tuple(self._committed)

    def ask(self, release_id: str, boot_ids: Iterable[str]) -> dict[str, str]:
        """These gateways are asked for their part; returns its name by boot id."""
        parts = {boot_id: f"{release_id}/{boot_id}" for boot_id in boot_ids}
        self._parts[release_id] = parts
        return parts

    def answer(self, partial: pb.Partial) -> None:
        """A gateway gave its part."""
        self._answers[partial.release_id] = partial

    def is_answered(self, part: str) -> bool:
        """Whether a part was given."""
        return part in self._answers

    def settle(self, release_id: str) -> dict[str, pb.Partial]:
        """Leave out the parts not given; returns the others by name."""
        given = {b: part for b, part in self._parts[release_id].items() if part in self._answers}
        self._parts[release_id] = given
        return {part: self._answers[part] for part in given.values()}

    def commit(self, release_id: str) -> dict[str, str]:
        """What was given is in a stored version; returns the parts by boot id."""
        parts = self._parts.pop(release_id, {})
        for part in parts.values():
            if not self._answers.pop(part).kept:
                self._committed.append(part)
        del self._committed[:-_REMEMBERED_COMMITS]
        return parts
