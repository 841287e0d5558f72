"""What becomes of an update that a device keeps."""

from device_runtime.protocol import device_pb2 as pb
from server.gateway.leasing import Leasing
from server.gateway.opened_job import OpenedJob
from server.gateway.task_book import JOB_ENDED, TaskBook
from server.gateway.tokens import TaskClaims

_KEEP_UNDECIDED_S = 24 * 3600.0


def settled(
    tasks: TaskBook, leasing: Leasing, task_id: str, payload_sha256: bytes
) -> pb.Settlement | None:
    """What this gateway's own tasks say of an update; None when it is of none of them."""
    folded = tasks.folded(task_id)
    if folded is not None:
        if folded != payload_sha256:
            return _settlement(task_id, pb.Settlement.DROPPED, "other_digest")
        return _settlement(task_id, pb.Settlement.HELD)
    answer = tasks.answer(task_id)
    if answer is not None:
        return answer.settlement(task_id)
    lease = tasks.leases.of_task(task_id)
    if lease is None:
        return None
    late = None if lease.uploading else leasing.end_if_late(lease)
    if late is not None:
        return late.settlement(task_id)
    return _settlement(task_id, pb.Settlement.UPLOAD_AGAIN)


def settled_by_job(
    claims: TaskClaims, job: OpenedJob | None, now_s: float, *, is_closed: bool, may_count: bool
) -> pb.Settlement:
    """What the open job says of an update whose task nobody knows and no outcome is stored of.

    Args:
        claims: Of its token.
        job: The open one.
        now_s: Server's clock.
        is_closed: Its job was closed here last.
        may_count: It was leased by a process that is gone, on a version that is live.
    """
    task_id = claims.task_id
    if job is None:
        # Its job may be opened any moment; but no device keeps an update for ever.
        overdue = now_s - claims.deadline_ms / 1000 > _KEEP_UNDECIDED_S
        if overdue or is_closed:
            return _settlement(task_id, pb.Settlement.DROPPED, JOB_ENDED)
        return _settlement(task_id, pb.Settlement.HELD)
    if claims.job_id != job.job_id:
        return _settlement(task_id, pb.Settlement.DROPPED, JOB_ENDED)
    if not may_count:
        return _settlement(task_id, pb.Settlement.DROPPED, "gateway_lost")
    return _settlement(task_id, pb.Settlement.UPLOAD_AGAIN)


def _settlement(task_id: str, state: pb.Settlement.State, reason: str = "") -> pb.Settlement:
    return pb.Settlement(task_id=task_id, state=state, reason=reason)
