"""What the coordinator has yet to be told, and what it was told and has not acknowledged."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.fleet_protocol import fleet_pb2 as pb
from server.update_gate.rejections import RejectionReason


@dataclass(frozen=True, slots=True)
class SequencedProgress:
    """One progress message with its place in the order of this boot."""

    sequence: int
    progress: pb.Progress


class Outbox:
    """Changes gather into one `Progress` until it is taken; taken ones are kept until acknowledged.

    Memory is bounded by the slots the coordinator grants: each leased task leaves at most two
    changes, and refusals and attempts are counted by reason and shape.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listener: Callable[[], None] | None = None
        self._gathering = pb.Progress()
        self._refusals: Counter[RejectionReason] = Counter()
        self._sessions: Counter[str] = Counter()
        self._unacknowledged: list[SequencedProgress] = []
        self._sequence = 0

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Have ``listener`` called after every change, under the state's lock; it only rings."""
        self._listener = listener

    def leased(self, message: pb.Leased) -> None:
        """A device took a task."""
        with self._lock:
            self._gathering.leased.append(message)
        self._changed()

    def completed(self, message: pb.Completed) -> None:
        """An update was folded."""
        with self._lock:
            self._gathering.completed.append(message)
        self._changed()

    def ended(self, messages: Iterable[pb.Ended]) -> None:
        """Tasks ended without counting."""
        with self._lock:
            self._gathering.ended.extend(messages)
        self._changed()

    def refused(self, reason: RejectionReason) -> None:
        """An upload that belongs to no open task was refused."""
        with self._lock:
            self._refusals[reason] += 1
        self._changed()

    def session(self, shape: str) -> None:
        """An attempt of a device ended."""
        with self._lock:
            self._sessions[shape] += 1
        self._changed()

    def take(self) -> SequencedProgress | None:
        """Everything gathered since the last call, as the next message; None when nothing was."""
        with self._lock:
            for reason, count in self._refusals.items():
                self._gathering.refusals.add(reason_code=int(reason), count=count)
            self._refusals.clear()
            for shape, count in self._sessions.items():
                self._gathering.sessions.add(shape=shape, count=count)
            self._sessions.clear()
            if not self._gathering.ByteSize():
                return None
            taken = SequencedProgress(self._next_sequence(), self._gathering)
            self._gathering = pb.Progress()
            self._unacknowledged.append(taken)
            return taken

    def resume(self, snapshot: pb.Progress) -> tuple[SequencedProgress, ...]:
        """What a new connection begins with: all that is unacknowledged, in order, and a snapshot.

        The snapshot takes the next sequence and is not kept: the next connection makes its own.
        """
        self.take()
        with self._lock:
            return (*self._unacknowledged, SequencedProgress(self._next_sequence(), snapshot))

    def acknowledge(self, sequence: int) -> None:
        """The coordinator has handled every message up to this one."""
        with self._lock:
            self._unacknowledged = [m for m in self._unacknowledged if m.sequence > sequence]

    def clear(self) -> None:
        """Forget everything: it belonged to a job that is over. Sequences go on."""
        with self._lock:
            self._gathering = pb.Progress()
            self._refusals.clear()
            self._sessions.clear()
            self._unacknowledged.clear()

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _changed(self) -> None:
        listener = self._listener
        if listener is not None:
            listener()
