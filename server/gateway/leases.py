"""Tasks that devices hold at this moment."""

import heapq
from dataclasses import dataclass

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.session_shape import CHECKED_IN
from server.gateway.tokens import TaskClaims


@dataclass(slots=True)
class Lease:
    """One task in a device's hands.

    Attributes:
        deadline_s: When it ends as interrupted, on the server's clock.
        task: As handed out, to be handed out again if the answer was lost; None for a task of a
            lost gateway, known from its token alone.
        uploading: Its update is being gated and folded right now; it cannot expire meanwhile.
        course: How far its device came with it, as it says (`device_runtime.session_shape`).
    """

    claims: TaskClaims
    deadline_s: float
    task: device_pb.Task | None
    uploading: bool = False
    course: str = CHECKED_IN


class LeaseBook:
    """Leases by task, by device and by deadline.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._by_task: dict[str, Lease] = {}
        self._by_device: dict[str, str] = {}
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_task)

    def add(self, lease: Lease) -> None:
        """Note a lease that a device was handed."""
        task_id = lease.claims.task_id
        self._by_task[task_id] = lease
        self._by_device[lease.claims.device_id] = task_id
        heapq.heappush(self._deadlines, (lease.deadline_s, task_id))

    def adopt(self, lease: Lease) -> None:
        """Note a task of a lost gateway for as long as its upload runs.

        The device may hold a lease of this gateway beside it.
        """
        self._by_task[lease.claims.task_id] = lease

    def of_task(self, task_id: str) -> Lease | None:
        """The lease of a task."""
        return self._by_task.get(task_id)

    def of_device(self, device_id: str) -> Lease | None:
        """The lease a device holds."""
        task_id = self._by_device.get(device_id)
        return None if task_id is None else self._by_task.get(task_id)

    def remove(self, lease: Lease) -> None:
        """The task has ended."""
        claims = lease.claims
        self._by_task.pop(claims.task_id, None)
        if self._by_device.get(claims.device_id) == claims.task_id:
            del self._by_device[claims.device_id]

    def upload_broken_off(self, lease: Lease) -> None:
        """Its upload gave no answer: it is as before, and may expire again."""
        lease.uploading = False
        if lease.task is None:
            self.remove(lease)
        else:
            heapq.heappush(self._deadlines, (lease.deadline_s, lease.claims.task_id))

    def take_overdue(self, now_s: float) -> list[Lease]:
        """Leases whose deadline has passed; the caller ends them."""
        overdue = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, task_id = heapq.heappop(self._deadlines)
            lease = self._by_task.get(task_id)
            if lease is not None and not lease.uploading:
                overdue.append(lease)
        return overdue

    def next_deadline_s(self) -> float | None:
        """The nearest deadline; it may be one of a task that has ended."""
        return self._deadlines[0][0] if self._deadlines else None

    def all(self) -> list[Lease]:
        """Every lease, in the order they were taken."""
        return list(self._by_task.values())

    def clear(self) -> None:
        """Forget all."""
        self._by_task.clear()
        self._by_device.clear()
        self._deadlines.clear()
