"""Flower's `Grid` on a virtual clock: what a ServerApp and its strategy talk to."""

import math
import threading
from collections.abc import Iterable, Iterator

from flwr.app import Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from flwr.supercore.run import Run

from device_runtime.errors import FlintError
from simulation.flower.app_folder import UnsupportedFlowerApp
from simulation.flower.nodes import FIRST_NODE_ID, Nodes, OnlineNodes
from simulation.flower.rounds import Rounds
from simulation.flower.sent_message import is_training
from simulation.flower.superlink import VirtualSuperLink

SERVER_POLL_S = 3.0
"""``send_and_receive`` looks for replies every 3 s (flwr 1.41.0, superlink/grid/http_grid)."""

_NODES_POLL_S = 1.0
"""Strategies look for more nodes every second (flwr 1.41.0, strategy_utils.sample_nodes)."""

_FRUITLESS_SLEEPS = 1000
_IDLE_S = 30 * 86_400.0


class NothingCanArrive(FlintError):
    """The ServerApp waits for something that never comes."""

    code = "FLN-1765"


class VirtualGrid(Grid):
    """A grid whose nodes are the clients of an environment and whose time is virtual.

    It is the clock, too: what the ServerApp sleeps passes here. Only the thread that made it may
    use it: with several, the order of events would be the operating system's.

    Attributes:
        result: Of the strategy that ended last.
    """

    def __init__(self, run: Run, link: VirtualSuperLink, nodes: Nodes) -> None:
        self._run = run
        self._link = link
        self._nodes = nodes
        self._online = OnlineNodes(nodes)
        self._thread_id = threading.get_ident()
        self._fruitless_sleeps = 0
        self._busy_s = 0.0
        self._last_empty_pull_s = -math.inf
        self._rounds: Rounds | None = None
        self.result: Result | None = None

    def watch(self, rounds: Rounds) -> None:
        """Tell these rounds what goes over the grid."""
        self._rounds = rounds

    def note_server_metrics(self, metrics: MetricRecord) -> None:
        """The ServerApp has measured its newest arrays."""
        if self._rounds is not None:
            self._rounds.on_server_metrics(metrics)

    def momentary(self) -> tuple[float, int, int]:
        """Virtual time, nodes online and tasks in flight, now."""
        now_s = self._link.now_s()
        return now_s, self._online.count(now_s), self._link.in_flight

    # -- the clock -----------------------------------------------------------------------------

    def now_s(self) -> float:
        """See `Clock.now_s`."""
        return self._link.now_s()

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`.

        Raises:
            NothingCanArrive: If the app sleeps on though nothing can happen any more, or sleeps
                for weeks without a message.
        """
        now_s = self._link.now_s()
        self._online.count(now_s)
        happens_s = min(self._link.next_event_s(), self._online.next_change_s())
        self._fruitless_sleeps = self._fruitless_sleeps + 1 if happens_s == math.inf else 0
        if self._fruitless_sleeps > _FRUITLESS_SLEEPS:
            raise NothingCanArrive(
                "the ServerApp goes on waiting, but no message is on its way and no node will come "
                "or go any more; give the app something to wait for, or let the availability "
                "trace repeat (repeat_every_s)"
            )
        if now_s > self._busy_s + max(_IDLE_S, self._nodes.longest_wait_s()):
            raise NothingCanArrive(
                f"the ServerApp has slept for {(now_s - self._busy_s) / 86_400:.0f} virtual days "
                "without sending or receiving a message; let it ask for what the environment has"
            )
        self._link.advance(now_s + seconds)

    def wait_for_nodes(self, wanted: int) -> None:
        """Let time pass until so many nodes are online, in the steps a strategy takes.

        Raises:
            NothingCanArrive: If they never are.
        """
        begun_s = now_s = self._link.now_s()
        most = self._online.count(now_s)
        until_s = begun_s + self._nodes.longest_wait_s()
        while self._online.count(now_s) < wanted:
            change_s = self._online.next_change_s()
            if change_s == math.inf or now_s > until_s:
                raise NothingCanArrive(
                    f"the strategy waits for {wanted} nodes, but of {len(self._nodes)} at most "
                    f"{most} are online at once from hour {begun_s / 3600:.1f} on; lower its "
                    "minimum of nodes, or raise population.clients"
                )
            steps = max(1, math.ceil((change_s - now_s) / _NODES_POLL_S))
            self._link.advance(now_s + steps * _NODES_POLL_S)
            now_s = self._link.now_s()
            most = max(most, self._online.count(now_s))

    # -- Grid ----------------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """See `Grid.set_run`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `Grid.run`."""
        return Run(**vars(self._run))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes inside a window of their availability, now, ascending."""
        self._require_thread()
        return [client + FIRST_NODE_ID for client in self._online.at(self._link.now_s())]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """See `Grid.get_nodes`."""
        return [NodeInfo(node_id=node_id, status="online") for node_id in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; an id each, ``""`` for one to a node that does not exist."""
        self._require_thread()
        batch = list(messages)
        self._fruitless_sleeps, self._busy_s = 0, self._link.now_s()
        if self._rounds is None:
            return self._link.push(batch, [0] * len(batch))
        self._rounds.on_push(batch)
        return self._link.push(batch, [self._rounds.base_version(message) for message in batch])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies and errors that have arrived. A message is answered once.

        An app that pulls again without having slept would ask for ever at the same moment: time
        moves on to the next event.
        """
        self._require_thread()
        wanted = self._link.in_order(message_ids)
        replies = list(self._pull(wanted))
        now_s = self._link.now_s()
        if not replies and wanted and now_s == self._last_empty_pull_s:
            next_s = min(self._link.next_event_s(), self._online.next_change_s())
            if next_s < math.inf:
                self._link.advance(next_s)
            replies = list(self._pull(wanted))
        self._last_empty_pull_s = self._link.now_s() if not replies else -math.inf
        self._tell(replies)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull every 3 s until all have answered or the timeout has passed.

        The same loop as Flower's `HttpGrid`, but for polls at which nothing can have changed.
        """
        batch = list(messages)
        waiting = self._link.in_order(self.push_messages(batch))
        end_s = math.inf if timeout is None else self._link.now_s() + timeout
        replies: list[Message] = []
        while self._link.now_s() < end_s:
            pulled = list(self._pull(waiting))
            replies += pulled
            answered = {reply.metadata.reply_to_message_id for reply in pulled}
            waiting = [each for each in waiting if each not in answered]
            if not waiting:
                break
            now_s = self._link.now_s()
            next_s = min(self._link.next_event_s(), end_s)
            polls = max(1, math.ceil((next_s - now_s) / SERVER_POLL_S))
            self._link.advance(now_s + polls * SERVER_POLL_S)
        self._tell(replies)
        if self._rounds is not None and any(map(is_training, batch)):
            self._rounds.on_waited()
        return replies

    def _pull(self, message_ids: Iterable[str]) -> Iterator[Message]:
        version = self._rounds.version if self._rounds is not None else 0
        for message_id in message_ids:
            answer = self._link.pull(message_id, version)
            if answer is not None:
                yield answer

    def _tell(self, replies: list[Message]) -> None:
        if replies:
            self._busy_s = self._link.now_s()
        if self._rounds is not None and replies:
            self._rounds.on_replies(replies)

    def _require_thread(self) -> None:
        if threading.get_ident() != self._thread_id:
            raise UnsupportedFlowerApp(
                "the app uses its grid from another thread, whose order no virtual clock can know; "
                "call it from the function under @app.main() alone"
            )
