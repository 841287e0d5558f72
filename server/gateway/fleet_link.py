"""The gateway's end of flint.fleet.v1: one stream to the coordinator, dialled whenever it ends."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import grpc

from device_runtime.errors import FlintError
from feature_catalog.failpoints import failpoint
from server.aggregation.process import AggregatorLost
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol import fleet_pb2_grpc
from server.gateway.orders import OrderDesk
from server.gateway.state import GatewayState

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
GATHER_S = 0.05
"""Least time between two progress messages: the first change goes at once, a flood in batches."""

_FIRST_BACK_OFF_S = 0.1
_LONGEST_BACK_OFF_S = 2.0

ChannelFactory = Callable[[], grpc.Channel]


class Connection:
    """One stream's outgoing half: answers first, then progress, then a heartbeat now and then.

    gRPC draws messages from it in a thread of its own; nothing here polls.
    """

    def __init__(self, state: GatewayState, hello: pb.Hello, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock
        self._changed = threading.Condition()
        self._answers = deque([pb.GatewayMessage(hello=hello)])
        self._has_progress = False
        self._is_open = False
        self._closed = False
        self._told_s = 0.0
        self._heartbeat_s = time.monotonic()
        self._check_ins = state.counts().check_ins

    def __iter__(self) -> Iterator[pb.GatewayMessage]:
        """Messages to send, until `close`."""
        while not self._closed:
            deadline_s = self._state.expire(self._clock())
            with self._changed:
                self._wait(deadline_s)
                answer = self._answers.popleft() if self._answers else None
                tells = answer is None and self._may_tell()
                if tells:
                    self._has_progress, self._told_s = False, time.monotonic()
            if answer is not None:
                yield answer
            elif tells and (progress := self._state.take_progress()) is not None:
                failpoint("progress_to_be_sent")
                yield progress
            elif time.monotonic() - self._heartbeat_s >= HEARTBEAT_S:
                yield self._heartbeat()

    def note_progress(self) -> None:
        """There is something to tell; called under other locks, so it only rings."""
        with self._changed:
            if not self._has_progress:
                self._has_progress = True
                self._changed.notify()

    def answer(self, messages: list[pb.GatewayMessage], *, opened: bool) -> None:
        """Queue answers; once a job was opened here, progress may follow them."""
        with self._changed:
            self._answers.extend(messages)
            self._is_open = self._is_open or opened
            self._changed.notify()

    def close(self) -> None:
        """End the stream's outgoing half."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _wait(self, deadline_s: float | None) -> None:
        """Until something changes, or a task's deadline or a heartbeat is due."""
        if self._closed or self._answers or self._may_tell():
            return
        now_s = time.monotonic()
        wait_s = self._heartbeat_s + HEARTBEAT_S - now_s
        if deadline_s is not None:
            wait_s = min(wait_s, deadline_s - self._clock())
        if self._has_progress and self._is_open:
            wait_s = min(wait_s, self._told_s + GATHER_S - now_s)
        if wait_s > 0:
            self._changed.wait(wait_s)

    def _may_tell(self) -> bool:
        due = time.monotonic() - self._told_s >= GATHER_S
        return self._has_progress and self._is_open and due

    def _heartbeat(self) -> pb.GatewayMessage:
        now_s, counts = time.monotonic(), self._state.counts()
        rate = (counts.check_ins - self._check_ins) / (now_s - self._heartbeat_s)
        self._heartbeat_s, self._check_ins = now_s, counts.check_ins
        return pb.GatewayMessage(
            heartbeat=pb.Heartbeat(check_ins_per_s=rate, leased=counts.leased, held=counts.held)
        )


class FleetLink:
    """Keeps the gateway attached to the coordinator for as long as it runs."""

    def __init__(
        self,
        state: GatewayState,
        orders: OrderDesk,
        gateway_id: str,
        open_channel: ChannelFactory,
        *,
        clock: Callable[[], float],
        on_lost: Callable[[FlintError], None],
    ) -> None:
        """Assemble; `start` dials.

        Args:
            gateway_id: The same over all boots of this gateway.
            open_channel: Makes a channel to the coordinator.
            clock: Server's clock, seconds since the epoch.
            on_lost: Called when the aggregator is gone, and this gateway's sums with it.
        """
        self._state = state
        self._orders = orders
        self._hello = pb.Hello(
            gateway_id=gateway_id, boot_id=state.boot_id, capacity=state.capacity
        )
        self._open_channel = open_channel
        self._clock = clock
        self._on_lost = on_lost
        self._stopped = threading.Event()
        self._is_attached = False
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="fleet-link", daemon=True)

    @property
    def is_attached(self) -> bool:
        """Whether the coordinator answers on a stream."""
        return self._is_attached

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up and dial no more."""
        self._stopped.set()
        call = self._call
        if call is not None:
            call.cancel()
        self._thread.join()

    def _run(self) -> None:
        back_off_s, was_attached = _FIRST_BACK_OFF_S, True
        while not self._stopped.is_set():
            try:
                attached = self._attach()
            except AggregatorLost as error:
                self._on_lost(error)
                return
            except Exception:
                # Its stream is closed; the coordinator says everything again on the next one.
                log.exception("an order of the coordinator could not be carried out")
                attached = False
            if attached:
                back_off_s = _FIRST_BACK_OFF_S
            if self._stopped.is_set():
                return
            if attached or was_attached:
                log.warning("the coordinator is away; dialling until it is back")
            was_attached = attached
            self._stopped.wait(back_off_s * random.uniform(0.5, 1.5))  # noqa: S311
            back_off_s = min(2 * back_off_s, _LONGEST_BACK_OFF_S)

    def _attach(self) -> bool:
        """Serve one stream until it ends; returns whether the coordinator answered on it."""
        attached = False
        connection = Connection(self._state, self._hello, self._clock)
        self._state.outbox.listen(connection.note_progress)
        with self._open_channel() as channel:
            try:
                call = fleet_pb2_grpc.FleetLinkStub(channel).Attach(iter(connection))
                self._call = call
                if self._stopped.is_set():
                    call.cancel()
                for message in call:
                    if not attached:
                        log.info("attached to the coordinator")
                        attached = self._is_attached = True
                    opened = message.WhichOneof("body") == "open"
                    connection.answer(self._orders.carry_out(message), opened=opened)
            except grpc.RpcError as error:
                log.debug("the stream to the coordinator ended: %s", error)
            finally:
                self._is_attached = False
                connection.close()
                self._state.outbox.listen(None)
                self._state.detach()
        return attached
