"""Running an app's ClientApp for a node: its own context, its own random numbers, its own clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from simulation.flower.messages import copied_content, copied_message, error_reply, message_bytes
from simulation.flower.nodes import FIRST_NODE_ID
from simulation.flower.random_state import seed_of, seeded
from simulation.flower.virtual_time import on_clock
from simulation.random_streams import RandomStreams

TERMINATED = 143
"""Exit code of a process that is asked to end (SIGTERM): not the app's doing."""

_READING_S = 1e-6


class DeviceClock:
    """A device's own clock while its ClientApp runs: it stands still but for the app's sleeps.

    Each reading is a microsecond after the last, so that an app can divide by a time it measured.

    Args:
        reading_s: Instead of a microsecond.
    """

    def __init__(self, start_s: float, reading_s: float = _READING_S) -> None:
        self._start_s = start_s
        self._reading_s = reading_s
        self._readings = 0
        self.slept_s = 0.0

    def now_s(self) -> float:
        """See `Clock.now_s`."""
        self._readings += 1
        return self._start_s + self.slept_s + self._readings * self._reading_s

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`: the device works for longer, nobody else waits."""
        self.slept_s += seconds


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What a ClientApp did with a message.

    Attributes:
        reply: With content, or Flower's error if the app raised or gave no message.
        state: The client's context after it, to be kept if the device gets that far.
        slept_s: Seconds the app slept.
        error: What it raised, in a clause; empty if nothing.
    """

    reply: Message
    state: Context
    slept_s: float
    error: str

    @property
    def reply_bytes(self) -> int:
        """Bytes the node sends."""
        return message_bytes(self.reply)


class ClientRuns:
    """The clients of one trial, each with the context Flower's simulation would give it.

    Args:
        num_clients: Clients are the partitions 0 to ``num_clients - 1``.
        streams: Of the trial.
    """

    def __init__(
        self,
        app: ClientApp,
        num_clients: int,
        run_id: int,
        run_config: UserConfig,
        streams: RandomStreams,
    ) -> None:
        self._app = app
        self._num_clients = num_clients
        self._run_id = run_id
        self._run_config = run_config
        self._random = streams["flower/client"]
        self._contexts: dict[int, Context] = {}

    def run(self, client: int, ordinal: int, message: Message, at_s: float) -> ClientRun:
        """Run the ClientApp on a message, at once in wall time.

        Args:
            ordinal: Messages this client has taken before; keys its random numbers.
            at_s: Virtual time on the device.
        """
        context = self._context(client)
        delivered = copied_message(message)
        clock = DeviceClock(at_s)
        seed = seed_of(self._random.uniform(client, ordinal))
        with _as_node(context.node_id), on_clock(clock), seeded(seed):
            try:
                reply: object = self._app(delivered, context)
                error = ""
            except Exception as raised:
                error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
                # As SuperNodes word it (flwr 1.41.0, supernode/runtime/run_clientapp).
                reason = f"{type(raised)}:<'{raised}'>"
                reply = error_reply(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
            except SystemExit as left:
                if left.code == TERMINATED:
                    raise
                error = f"SystemExit: {left}"
                reply = client_crashed(message)
        if not isinstance(reply, Message) or not (reply.has_content() or reply.has_error()):
            error = f"its reply is a {type(reply).__name__}, not a Message"
            reply = client_crashed(message)
        return ClientRun(copied_message(reply), context, clock.slept_s, error)

    def keep(self, client: int, state: Context) -> None:
        """Keep a client's context for its next message."""
        self._contexts[client] = state

    def _context(self, client: int) -> Context:
        kept = self._contexts.get(client)
        if kept is None:
            partition: UserConfig = {
                PARTITION_ID_KEY: client,
                NUM_PARTITIONS_KEY: self._num_clients,
            }
            return Context(
                self._run_id,
                client + FIRST_NODE_ID,
                partition,
                RecordDict(),
                dict(self._run_config),
            )
        return Context(
            kept.run_id,
            kept.node_id,
            dict(kept.node_config),
            copied_content(kept.state),
            dict(kept.run_config),
            kept.series_id,
        )


def client_crashed(message: Message) -> Message:
    """A SuperNode's answer for a ClientApp that stopped without one (code 8)."""
    return error_reply(message, ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding.")


@contextmanager
def _as_node(node_id: int) -> Iterator[None]:
    """Messages made inside come from this node."""
    server = TaskIdentity.node_id
    TaskIdentity.node_id = node_id
    try:
        yield
    finally:
        TaskIdentity.node_id = server
