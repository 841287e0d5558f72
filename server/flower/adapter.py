"""A FLINT job as a Flower run, seen from the coordinator.

`submit_run` starts the run, the coordinator takes its ServerApp task (`FlowerRun.acquire`) and
drives it until `finish`; `stop_run` or `flwr stop` ends it. This module with `control`,
`task_session` and `records` beside it is all that uses Flower's inner parts; they are pinned to
the version they were measured with.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from flwr.common.constant import Status, SubStatus
from flwr.proto.run_pb2 import Run

from device_runtime.errors import FlintError
from server.flower.control import (
    FlowerRefused,
    RunStatus,
    SuperLinkUnreachable,
    find_run,
    run_status,
    stop_run,
    submit_run,
)
from server.flower.node_messages import NodeReply, NodeTask, RunEnded, SuperLinkBusy
from server.flower.superlink import WrongFlowerVersion, check_flower_version
from server.flower.task_session import TaskClaim, TaskSession, take_task
from server.operations.settings import ServerSettings

__all__ = [
    "FlowerRefused",
    "FlowerRun",
    "RunStatus",
    "SuperLinkUnreachable",
    "WrongFlowerVersion",
    "run_status",
    "stop_run",
    "submit_run",
]

log = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0
_PATIENCE_S = 60.0
_MAX_LOG_LINES = 10_000

_Answer = TypeVar("_Answer")


class FlowerRun:
    """A job's Flower run, driven by this process.

    A thread of its own keeps the task alive, notices a stop, and hands on our log lines. Should
    the run be lost (SuperLink was away for longer than Flower's patience of a minute), it starts
    another under the same name and goes on; tasks sent under the old one are then answered with
    Flower's error for lost messages.
    """

    def __init__(
        self, settings: ServerSettings, job_name: str, run_id: int, session: TaskSession | None
    ) -> None:
        self.run_id = run_id
        self._settings = settings
        self._job_name = job_name
        self._session = session
        self._stopped = threading.Event()
        self._closing = threading.Event()
        self._lines: deque[str] = deque(maxlen=_MAX_LOG_LINES)
        self._handler = _LineHandler(self._lines)
        self._thread = threading.Thread(target=self._watch, name="flower-run", daemon=True)
        if session is None:
            self._stopped.set()
        else:
            logging.getLogger("server").addHandler(self._handler)
            self._thread.start()

    @classmethod
    def acquire(cls, settings: ServerSettings, run_id: int | None, job_name: str) -> Self:
        """Take the ServerApp task of a run, waiting for SuperLink up to a minute.

        A run that this coordinator drove before it was restarted is taken up again while its task
        is alive. When the run is lost or None, another is started: `run_id` then differs. A run
        that somebody stopped is returned as it is, `stopped` and without nodes.

        Raises:
            SuperLinkUnreachable, FlowerRefused, WrongFlowerVersion: See there.
        """
        check_flower_version()
        run = find_run(settings, run_id, _PATIENCE_S) if run_id is not None else None
        if run is not None:
            if run.status.sub_status == SubStatus.STOPPED:
                return cls(settings, job_name, run.run_id, None)
            if run.status.status == Status.PENDING:
                session = take_task(settings, run, _PATIENCE_S)
                return cls(settings, job_name, run.run_id, session)
            claimed = _resume(settings, run)
            if claimed is not None:
                log.info("going on with Flower run %d", run.run_id)
                return cls(settings, job_name, run.run_id, claimed)
            stop_run(settings, run.run_id)
            log.info("Flower run %d was lost; starting another", run.run_id)
        session = _take_new(settings, job_name)
        return cls(settings, job_name, session.claim.run_id, session)

    @property
    def grid(self) -> Self:
        """The run's nodes, as a `NodeGrid`."""
        return self

    def stopped(self) -> bool:
        """Whether somebody stopped the run (`flwr stop`); noticed within seconds."""
        return self._stopped.is_set()

    def log(self, line: str) -> None:
        """Show a line in `flwr log`. Records of the ``server`` loggers are shown already."""
        self._lines.append(line)

    def finish(self, status: str, detail: str) -> None:
        """End the run: ``"completed"``, ``"failed"`` or ``"stopped"``. A run that is over stays so.

        Args:
            detail: Shown in `flwr list` for a run that failed.
        """
        session = self._close()
        if session is None:
            return
        try:
            if not self.stopped():
                session.push_logs(self._take_lines())
                session.push_output(status, detail)
        except (RunEnded, SuperLinkBusy) as error:
            log.warning("Flower run %d could not be marked %s: %s", self.run_id, status, error)
        finally:
            session.close()

    def abandon(self) -> None:
        """Stop driving the run but leave it: the next coordinator takes it up within a minute."""
        session = self._close()
        if session is not None:
            session.close()

    # -- NodeGrid --------------------------------------------------------------------------------

    def online_nodes(self) -> Sequence[int]:
        """See `NodeGrid.online_nodes`."""
        return self._attempt(lambda session: session.online_nodes())

    def push(self, tasks: Sequence[NodeTask]) -> Sequence[str | None]:
        """See `NodeGrid.push`."""
        return self._attempt(lambda session: session.push(tasks))

    def pull(self, message_ids: Sequence[str], *, max_reply_bytes: int) -> Sequence[NodeReply]:
        """See `NodeGrid.pull`."""
        return self._attempt(lambda session: session.pull(message_ids, max_reply_bytes))

    # -- keeping it alive ------------------------------------------------------------------------

    def _live_session(self) -> TaskSession:
        if self._session is None or self.stopped() or self._closing.is_set():
            raise RunEnded(f"Flower run {self.run_id} is over")
        return self._session

    def _attempt(self, what: Callable[[TaskSession], _Answer]) -> _Answer:
        session = self._live_session()
        try:
            return what(session)
        except RunEnded as ended:
            # Stopped or lost? The watching thread finds out, and goes on with another if lost.
            if self.stopped() or self._closing.is_set():
                raise
            raise SuperLinkBusy(str(ended)) from ended

    def _close(self) -> TaskSession | None:
        self._closing.set()
        logging.getLogger("server").removeHandler(self._handler)
        if self._thread.is_alive():
            self._thread.join()
        return self._session

    def _watch(self) -> None:
        while not self._closing.wait(_HEARTBEAT_S):
            try:
                self._live_session().heartbeat()
                self._live_session().push_logs(self._take_lines())
            except SuperLinkBusy as error:
                log.debug("SuperLink is busy: %s", error)
            except RunEnded:
                try:
                    self._find_out()
                except (FlintError, SuperLinkBusy, RunEnded) as error:  # again at the next turn
                    log.warning("%s", error)
                if self.stopped():
                    return

    def _find_out(self) -> None:
        """SuperLink no longer takes our token: was the run stopped, or lost?"""
        run = find_run(self._settings, self.run_id)
        if run is not None and run.status.sub_status == SubStatus.STOPPED:
            log.info("Flower run %d was stopped", self.run_id)
            self._stopped.set()
        elif not self._closing.is_set():
            before, self._session = self._session, _take_new(self._settings, self._job_name)
            log.warning("Flower run %d was lost; went on as %d", self.run_id, self._session.run_id)
            self.run_id = self._session.run_id
            if before is not None:
                before.close()

    def _take_lines(self) -> list[str]:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft() + "\n")
        return lines


class _LineHandler(logging.Handler):
    """Keeps formatted records for `flwr log`."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__(logging.INFO)
        self._kept = lines
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(self.format(record))


def _take_new(settings: ServerSettings, job_name: str) -> TaskSession:
    run_id = submit_run(settings, job_name, _PATIENCE_S)
    run = find_run(settings, run_id)
    if run is None:
        raise FlowerRefused(f"SuperLink started Flower run {run_id} and no longer knows it")
    return take_task(settings, run, _PATIENCE_S)


def _resume(settings: ServerSettings, run: Run) -> TaskSession | None:
    """The session of this coordinator's last incarnation, if its task is still alive.

    One that died between taking the task and beginning it left it starting.
    """
    claim = TaskClaim.load(settings, run.run_id)
    if claim is None:
        return None
    session = TaskSession(settings, claim)
    try:
        if run.status.status == Status.STARTING:
            session.activate()
        session.heartbeat()
    except (RunEnded, SuperLinkBusy):
        session.close()
        return None
    return session
