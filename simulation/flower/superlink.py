"""A SuperLink and its SuperNodes on a virtual clock: messages wait, are taken, answered or lost.

What a message costs is known when its node takes it: the ClientApp runs then, in the process, and
its reply arrives when link and device would have got that far. Delivery is at most once, as on a
SuperLink: a node that goes with a message never answers it.
"""

import hashlib
import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from flwr.app import Message
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_PATIENCE,
    ErrorCode,
)
from flwr.server.utils import validate_message

from server.coordination.tasks import Outcome
from simulation.clock import EventKind, Scheduled
from simulation.durations import TaskCourse, TaskWork, task_course
from simulation.flower.client_runs import ClientRuns, client_crashed
from simulation.flower.messages import (
    copied_message,
    message_bytes,
    message_unavailable,
    node_unavailable,
    num_examples,
    reply_unavailable,
)
from simulation.flower.nodes import Nodes, task_duration_of
from simulation.flower.sent_message import SentMessage, is_training, made_at
from simulation.flower.virtual_time import EPOCH_S
from simulation.task_log import TaskLog

CRASH_NOTICED_S = float(HEARTBEAT_DEFAULT_INTERVAL * HEARTBEAT_PATIENCE)
"""A SuperNode takes a ClientApp for crashed when it was silent for two heartbeats (60 s)."""

_REASONS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "client_app_not_loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "client_app_exception",
    ErrorCode.MOD_FAILED_PRECONDITION: "mod_precondition",
    ErrorCode.CLIENT_APP_CRASHED: "client_app_crashed",
}


class VirtualSuperLink:
    """Messages and nodes of one trial.

    Args:
        log: Told of every task.
    """

    def __init__(self, run_id: int, nodes: Nodes, clients: ClientRuns, log: TaskLog) -> None:
        self._run_id = run_id
        self._nodes = nodes
        self._clients = clients
        self._log = log
        self._agenda: list[Scheduled] = []
        self._now_s = 0.0
        self._pushed = 0
        self._undelivered = 0
        self._sent: dict[int, SentMessage] = {}
        self._open: dict[str, SentMessage] = {}
        self._queues: dict[int, deque[int]] = {}
        self._busy: dict[int, int] = {}
        self._polling: set[int] = set()
        self._taken: Counter[int] = Counter()
        self._polls: Counter[int] = Counter()
        self.client_errors: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """Tasks running on devices."""
        return len(self._busy)

    @property
    def pushed(self) -> int:
        """Messages accepted so far."""
        return self._pushed

    @property
    def undelivered(self) -> int:
        """Messages given up without a node having taken them."""
        return self._undelivered

    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_s

    # -- the server's side ---------------------------------------------------------------------

    def push(self, messages: Sequence[Message], base_versions: Sequence[int]) -> list[str]:
        """Accept messages; returns their ids, ``""`` for those refused, as a SuperLink does.

        Args:
            base_versions: Version of the model each is about, for the task log.
        """
        contents: dict[int, tuple[Message, int]] = {}
        pairs = zip(messages, base_versions, strict=True)
        return [self._accept(message, base_version, contents) for message, base_version in pairs]

    def _accept(
        self, message: Message, base_version: int, contents: dict[int, tuple[Message, int]]
    ) -> str:
        number = self._pushed
        digest = hashlib.sha256(f"{self._run_id}|{number}".encode()).hexdigest()
        message.metadata.__dict__["_message_id"] = digest
        client = self._nodes.client_of(message.metadata.dst_node_id)
        if (
            client is None
            or message.has_error()
            or validate_message(message, is_reply_message=False)
        ):
            return ""
        known = contents.get(id(message.content))
        if known is None:
            known = copied_message(message), message_bytes(message)
            contents[id(message.content)] = known
        expires_s = message.metadata.created_at - EPOCH_S + message.metadata.ttl
        own = copied_message(message, known[0].content)
        sent = SentMessage(number, own, client, known[1], base_version, expires_s)
        self._pushed += 1
        self._sent[number] = sent
        self._open[digest] = sent
        self._queues.setdefault(client, deque()).append(number)
        self._schedule(max(expires_s, self._now_s), EventKind.EXPIRED, number)
        start_s, end_s = self._nodes.window(client, self._now_s)
        if start_s <= self._now_s and end_s < math.inf:
            self._schedule(end_s, EventKind.LEFT, number)
        if client not in self._busy and client not in self._polling:
            self._poll_next(client)
        return digest

    def pull(self, message_id: str, version: int) -> Message | None:
        """Answer for a message: its reply, an error of the SuperLink's, or None: not yet.

        A reply that has arrived is given out even when its node has gone since.

        Args:
            version: Which a reply to training becomes part of, for the task log.
        """
        sent = self._open.get(message_id)
        if sent is None:
            return message_unavailable(message_id, self._run_id)
        answer: Message | None = None
        if sent.expires_s <= self._now_s:
            answer = message_unavailable(message_id, self._run_id)
        elif sent.reply is not None:
            answer = self._take_reply(sent, sent.reply, version)
        elif not self._nodes.is_online(sent.client, self._now_s):
            answer = node_unavailable(sent.message)
        if answer is not None:
            self._close_message(sent)
        return answer

    def in_order(self, message_ids: Iterable[str]) -> list[str]:
        """Each id once, in the order of the pushes: apps keep ids in sets, which have none."""

        def place(message_id: str) -> tuple[int, str]:
            sent = self._open.get(message_id)
            return (-1 if sent is None else sent.number), message_id

        return sorted(set(message_ids), key=place)

    def _take_reply(self, sent: SentMessage, reply: Message, version: int) -> Message:
        if reply.metadata.created_at + reply.metadata.ttl < EPOCH_S + self._now_s:
            self._decide(sent, Outcome.INTERRUPTED, "ttl")
            return reply_unavailable(sent.message)
        self._decide(sent, Outcome.SUCCEEDED, "", version if is_training(sent.message) else None)
        return reply

    # -- the clock -----------------------------------------------------------------------------

    def next_event_s(self) -> float:
        """When something next happens to a message; infinite for never."""
        agenda = self._agenda
        while agenda and agenda[0].kind is not EventKind.ARRIVED:
            if agenda[0].sequence in self._sent:
                break
            heapq.heappop(agenda)  # of a message that is over
        return agenda[0].at_s if agenda else math.inf

    def advance(self, to_s: float) -> None:
        """Let everything happen up to and including a moment; the clock stops there."""
        while self.next_event_s() <= to_s:
            scheduled = heapq.heappop(self._agenda)
            self._now_s = scheduled.at_s
            self._happen(scheduled)
        self._now_s = max(self._now_s, to_s)

    def close(self) -> None:
        """End the run: devices stop where they are, and what was not pulled was in vain."""
        for number in sorted(self._busy.values()):
            sent = self._sent[number]
            if not sent.is_ended:
                self._end(sent, self._course(sent, window_end_s=self._now_s))
                self._decide(sent, Outcome.OVER_COMMITTED, "run_ended")
        self._busy.clear()
        for sent in list(self._sent.values()):
            self._decide(sent, Outcome.OVER_COMMITTED, "not_pulled")
            self._close_message(sent)
        self._agenda.clear()

    # -- the nodes' side -----------------------------------------------------------------------

    def _happen(self, scheduled: Scheduled) -> None:
        if scheduled.kind is EventKind.ARRIVED:
            self._polling.discard(scheduled.sequence)
            self._take_next(scheduled.sequence)
            return
        sent = self._sent.get(scheduled.sequence)
        if sent is None:
            return
        is_running = self._busy.get(sent.client) == sent.number
        match scheduled.kind:
            case EventKind.COMPLETED if is_running:
                self._complete(sent)
            case EventKind.TIMER if is_running:
                self._lose(sent)
            case EventKind.FAILED if is_running:
                self._arrive(sent, made_at(client_crashed(sent.message), sent, self._now_s))
                self._free(sent.client, at_once=True)
            case EventKind.LEFT if is_running:
                self._lose(sent)
                self._free(sent.client, at_once=False)
            case EventKind.EXPIRED:
                if sent.reply is not None:
                    self._decide(sent, Outcome.OVER_COMMITTED, "not_pulled")
                self._close_message(sent)
            case _:
                pass  # a moment at which the server can learn that a node has gone

    def _poll_next(self, client: int, *, at_once: bool = False) -> None:
        """Let an idle node ask for messages when it next would."""
        poll_s = self._now_s
        if not (at_once and self._nodes.is_online(client, self._now_s)):
            poll_s = self._nodes.next_poll_s(client, self._now_s, self._polls[client])
            self._polls[client] += 1
        if poll_s < math.inf:
            self._polling.add(client)
            self._schedule(poll_s, EventKind.ARRIVED, client)

    def _take_next(self, client: int) -> None:
        queue = self._queues[client]
        while queue:
            sent = self._sent.get(queue.popleft())
            if sent is not None and sent.expires_s > self._now_s:
                self._start(sent)
                return

    def _free(self, client: int, *, at_once: bool) -> None:
        self._forget_if_done(self._sent[self._busy.pop(client)])
        if self._queues[client]:
            self._poll_next(client, at_once=at_once)

    def _start(self, sent: SentMessage) -> None:
        client, at_s = sent.client, self._now_s
        ordinal = self._taken[client]
        self._taken[client] += 1
        speeds = self._nodes.transfer_bits_per_s(client, ordinal)
        window_end_s = self._nodes.window_end_s(client, at_s)
        dropout_s = self._nodes.dropout_s(client, ordinal)
        download = task_duration_of(sent.bytes_down, speeds, 0.0, 0)
        trains_s = at_s + download.download_s
        examples, bytes_up, sent.duration = 0, 0, download
        if trains_s <= min(window_end_s, at_s + dropout_s):
            run = self._clients.run(client, ordinal, sent.message, trains_s)
            if run.error:
                self.client_errors[run.error] += 1
            examples = num_examples(run.reply) if run.reply.has_content() else 0
            compute_s = self._nodes.compute_s(client, ordinal, sent.message, examples)
            bytes_up = run.reply_bytes
            sent.duration = task_duration_of(
                sent.bytes_down, speeds, compute_s + run.slept_s, bytes_up
            )
            trained_s = trains_s + sent.duration.train_s
            sent.upcoming = made_at(run.reply, sent, trained_s)
            if trained_s <= min(window_end_s, at_s + dropout_s):
                self._clients.keep(client, run.state)
        sent.started_s, sent.dropout_s = at_s, dropout_s
        sent.work = TaskWork(1, max(examples, 1), sent.bytes_down, bytes_up)
        course = sent.course = self._course(sent, window_end_s)
        self._busy[client] = sent.number
        sent.task = self._log.start(client, sent.base_version, at_s, sent.duration, examples)
        if course.completed:
            self._schedule(course.end_s, EventKind.COMPLETED, sent.number)
            return
        if course.reason == "dropout":
            self._schedule(course.end_s, EventKind.TIMER, sent.number)
            noticed_s = course.end_s + CRASH_NOTICED_S
            if noticed_s < window_end_s:
                self._schedule(noticed_s, EventKind.FAILED, sent.number)
                return
        self._schedule(window_end_s, EventKind.LEFT, sent.number)

    def _complete(self, sent: SentMessage) -> None:
        if sent.course is None or sent.upcoming is None:
            raise AssertionError(sent)
        self._end(sent, sent.course)
        self._arrive(sent, sent.upcoming)
        sent.upcoming = None
        self._free(sent.client, at_once=True)

    def _arrive(self, sent: SentMessage, reply: Message) -> None:
        """A reply reaches the SuperLink, which refuses it when its message has expired."""
        if sent.is_over or sent.expires_s <= self._now_s:
            self._decide(sent, Outcome.INTERRUPTED, "ttl")
            return
        sent.reply = reply
        if reply.has_error():
            reason = _REASONS.get(reply.error.code, f"error_{reply.error.code}")
            self._decide(sent, Outcome.FAILED, reason)

    def _lose(self, sent: SentMessage) -> None:
        """A device stops in the middle of a task; its SuperLink is not told."""
        if not sent.is_ended and sent.course is not None:
            self._end(sent, sent.course)
            self._decide(sent, Outcome.INTERRUPTED, sent.course.reason)
            sent.upcoming = None

    # -- what is over --------------------------------------------------------------------------

    def _schedule(self, at_s: float, kind: EventKind, sequence: int) -> None:
        heapq.heappush(self._agenda, Scheduled(at_s, kind, sequence))

    def _close_message(self, sent: SentMessage) -> None:
        """Whoever asks for it again is told that it is unknown."""
        sent.is_over = True
        self._open.pop(sent.message.metadata.message_id, None)
        self._forget_if_done(sent)

    def _forget_if_done(self, sent: SentMessage) -> None:
        """Let go of a message, and the arrays in it, when neither server nor node needs it."""
        is_running = self._busy.get(sent.client) == sent.number
        if sent.is_over and not is_running and self._sent.pop(sent.number, None) is not None:
            self._undelivered += sent.task is None

    # -- the task log --------------------------------------------------------------------------

    def _course(self, sent: SentMessage, window_end_s: float) -> TaskCourse:
        if sent.duration is None or sent.work is None:
            raise AssertionError(sent)
        return task_course(
            sent.started_s,
            sent.duration,
            sent.work,
            window_end_s=window_end_s,
            dropout_s=sent.dropout_s,
        )

    def _end(self, sent: SentMessage, course: TaskCourse) -> None:
        if sent.task is None:
            raise AssertionError(sent)
        sent.is_ended = True
        self._log.end(sent.task, course.end_s, course.bytes_down, course.bytes_up)

    def _decide(
        self, sent: SentMessage, outcome: Outcome, reason: str, version: int | None = None
    ) -> None:
        """The first outcome of a task is its outcome."""
        if sent.task is not None and not sent.is_decided:
            sent.is_decided = True
            self._log.decide(sent.task, outcome, reason, version)
