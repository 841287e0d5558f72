"""Federated evaluation beside training: questions out, answers when they come, nobody waits."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from server.flower.node_messages import NodeReply, SuperLinkBusy
from server.flower.strategies.grid_nodes import GridNodes

log = logging.getLogger("flwr")

_MAX_REPLY_BYTES = 2**24


@dataclass(slots=True, eq=False)
class _Question:
    """One version being evaluated.

    Attributes:
        waiting: Messages without an answer, by id.
    """

    server_round: int
    until_s: float
    waiting: dict[str, Message]
    answers: list[Message] = field(default_factory=list)


class FederatedEvaluations:
    """The evaluations of one run.

    Args:
        nodes: With an inbox of its own.
        timeout_s: After this long an evaluation ends with the answers it has.
        poll_s: Between two looks for answers.
    """

    def __init__(self, nodes: GridNodes, timeout_s: float, poll_s: float) -> None:
        self._nodes = nodes
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._next_pull_s = 0.0
        self._questions: list[_Question] = []

    @property
    def under_way(self) -> bool:
        """Whether an evaluation waits for answers."""
        return bool(self._questions)

    def begin(self, server_round: int, messages: Sequence[Message]) -> None:
        """Ask nodes to evaluate; nothing is asked when SuperLink refuses."""
        try:
            sent = self._nodes.send(messages)
        except SuperLinkBusy as busy:
            log.info("configure_evaluate: skipped, SuperLink refused (%s)", busy)
            return
        pairs = zip(sent, messages, strict=True)
        waiting = {message_id: message for message_id, message in pairs if message_id is not None}
        if waiting:
            now_s = time.monotonic()
            self._next_pull_s = now_s + self._poll_s
            self._questions.append(_Question(server_round, now_s + self._timeout_s, waiting))

    def ended(self) -> list[tuple[int, list[Message]]]:
        """Evaluations that have every answer or are over time: round and replies. Never waits."""
        if not self._questions or time.monotonic() < self._next_pull_s:
            return []
        self._pull()
        now_s = time.monotonic()
        self._next_pull_s = now_s + self._poll_s
        over = [each for each in self._questions if not each.waiting or now_s >= each.until_s]
        self._questions = [each for each in self._questions if each not in over]
        return [(each.server_round, each.answers) for each in over]

    def wait(self) -> None:
        """Wait until it is time to look again."""
        time.sleep(max(0.0, self._next_pull_s - time.monotonic()))

    def _pull(self) -> None:
        asked = [message_id for question in self._questions for message_id in question.waiting]
        try:
            replies = self._nodes.pull(asked, max_reply_bytes=_MAX_REPLY_BYTES)
        except SuperLinkBusy as busy:
            log.info("aggregate_evaluate: SuperLink refused (%s); asking again", busy)
            return
        for reply in replies:
            for question in self._questions:
                message = question.waiting.pop(reply.message_id, None)
                if message is not None:
                    question.answers.append(_as_message(reply, message))


def _as_message(reply: NodeReply, asked: Message) -> Message:
    """A reply as Flower's strategies take it; what cannot be read is an error."""
    if reply.error_code is not None:
        return Message(Error(reply.error_code, reply.error_reason), reply_to=asked)
    if reply.malformed is not None or reply.too_large:
        reason = reply.malformed or "the reply is too large"
        return Message(Error(ErrorCode.UNKNOWN, f"refused: {reason}"), reply_to=asked)
    records = {
        name: MetricRecord(dict(reply.values[name]))  # type: ignore[arg-type]
        for name in reply.metric_names
    }
    return Message(RecordDict(records), reply_to=asked)  # type: ignore[arg-type]
