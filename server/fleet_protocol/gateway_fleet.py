"""The `Fleet` of all attached gateways: the coordinator's end of flint.fleet.v1."""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from device_runtime.session_shape import SHAPES
from feature_catalog.failpoints import failpoint
from server.coordination.events import Event, SessionsEnded, TasksLost, UpdatesRefused
from server.coordination.fleet import OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol import fleet_pb2_grpc
from server.fleet_protocol.gateway_link import GatewayLink
from server.fleet_protocol.messages import (
    completed_event,
    ended_event,
    grant_message,
    open_message,
    partial_sums,
    started_event,
)
from server.fleet_protocol.release_book import ReleaseBook
from server.fleet_protocol.slot_placing import Placed, SlotPlacing, is_starving

log = logging.getLogger(__name__)

GATEWAY_LOST_AFTER_S = 20.0
"""A gateway away for longer is taken for dead; its uncommitted updates are asked for again."""

GATEWAY_SILENT_AFTER_S = 30.0
"""A gateway says something every few seconds; one silent for longer is dead, or its network is."""

PARTIAL_WITHIN_S = 120.0
"""A gateway that speaks but does not give its partial for longer is left out, and lost."""

BALANCE_EVERY_S = 2.0
"""Between two looks for slots that wait at one gateway while devices come to another."""


@dataclass(frozen=True, slots=True)
class _Told:
    """Stands behind the events of one progress message."""

    boot_id: str
    sequence: int


class GatewayFleet(fleet_pb2_grpc.FleetLinkServicer):
    """Gateways dial in; this object is their servicer and the coordinator's `Fleet` at once.

    gRPC threads feed `next_event`; the coordinator's thread calls everything else.
    """

    def __init__(
        self,
        lost_after_s: float = GATEWAY_LOST_AFTER_S,
        silent_after_s: float = GATEWAY_SILENT_AFTER_S,
        answer_within_s: float = PARTIAL_WITHIN_S,
    ) -> None:
        self._lost_after_s = lost_after_s
        self._silent_after_s = silent_after_s
        self._answer_within_s = answer_within_s
        self._lock = threading.RLock()
        self._answered = threading.Condition(self._lock)
        self._events: queue.Queue[Event | _Told] = queue.Queue()
        self._handed_out: dict[str, int] = {}
        self._links: dict[str, GatewayLink] = {}
        self._opened: OpenJob | None = None
        self._model: pb.SetModel | None = None
        self._slots = SlotPlacing()
        self._balanced_s = time.monotonic()
        self._told: pb.Gateways | None = None
        self._dropped: dict[int, pb.Drop] = {}
        self._releases = ReleaseBook()
        self._closed: pb.CoordinatorMessage | None = None
        self._sequence = 0

    # -- Fleet ---------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Wall clock, monotonic."""
        return time.monotonic()

    def open(self, job: OpenJob) -> None:
        """Open the job at every attached gateway, and at those that attach later."""
        with self._lock:
            self._opened, self._model = job, None
            self._slots.clear()
            self._dropped.clear()
            self._releases = ReleaseBook(job.committed_releases)
            self._events = queue.Queue()
            self._handed_out.clear()
            self._tell_gateways()
            for link in self._links.values():
                link.ready = False
                link.last_progress = link.acknowledged
                link.offered.clear()
                link.leased.clear()
                link.held.clear()
                self._send_open(link, job)

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version to every gateway."""
        with self._lock:
            self._model = pb.SetModel(
                version=version,
                parameters_sha256=parameters_sha256,
                oldest_live_version=oldest_live_version,
            )
            for old in [v for v in self._dropped if v < oldest_live_version]:
                del self._dropped[old]
            for link in self._attached():
                self._send(link, pb.CoordinatorMessage(set_model=self._model))

    def grant(self, grant: Grant) -> None:
        """Place slots at the gateways by their share of check-ins; keep what cannot be placed."""
        with self._lock:
            self._slots.add(grant)
            self._place()

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back a grant everywhere."""
        with self._lock:
            self._slots.cancel(grant_id, running_too=running_too)
            for link in self._links.values():
                link.offered.pop(grant_id, None)
                if link.connected:
                    self._send(
                        link,
                        pb.CoordinatorMessage(
                            cancel=pb.Cancel(grant_id=grant_id, running_too=running_too)
                        ),
                    )

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Wait for what gateways report; also notices gateways that stay away, or have no work."""
        self._lose_absent_gateways()
        self._balance()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while isinstance(event := self._next(deadline_s), _Told):
                self._handed_out[event.boot_id] = event.sequence
        except queue.Empty:
            return None
        return event

    def acknowledge(self) -> None:
        """All that followed from the events handed out so far is stored: gateways may forget it.

        Until then they say it again to a coordinator that takes this one's place.
        """
        with self._lock:
            handed_out, self._handed_out = self._handed_out, {}
            for boot_id, sequence in handed_out.items():
                link = self._links.get(boot_id)
                if link is not None:
                    link.acknowledged = max(link.acknowledged, sequence)
                    if link.connected:
                        self._acknowledge(link)

    def release(self, release: Release) -> Released:
        """Ask every gateway for its partial; one that is lost meanwhile is left out."""
        failpoint("release_to_be_asked")
        with self._lock:
            asked = self._releases.ask(
                release.release_id,
                [link.boot_id for link in self._links.values() if link.ready or link.held],
            )
            put_on: dict[str, object] = {}
            answer_by_s = time.monotonic() + self._answer_within_s
            while waiting := [b for b, part in asked.items() if self._awaits(b, part)]:
                for boot_id in waiting:
                    link = self._links[boot_id]
                    # Once a connection: a gateway that came back was not asked on its new one.
                    if link.connected and link.ready and put_on.get(boot_id) is not link.outgoing:
                        put_on[boot_id] = link.outgoing
                        self._send_release(link, asked[boot_id], release)
                self._answered.wait(timeout=0.5)
                self._lose_absent_gateways()
                if time.monotonic() > answer_by_s:
                    for boot_id in [b for b, part in asked.items() if self._awaits(b, part)]:
                        self._lose(self._links[boot_id])
            answers = self._releases.settle(release.release_id)
        failpoint("release_answered")
        sums = tuple(s for answer in answers.values() for s in partial_sums(answer))
        kept = tuple(answer.kept for answer in answers.values() if answer.kept)
        for reason in kept:
            log.info("release %s: an enclave keeps its aggregate: %s", release.release_id, reason)
        given = tuple(part for part, answer in answers.items() if not answer.kept)
        return Released(given, sums, kept)

    def commit(self, release_id: str) -> None:
        """Tell the gateways whose partials are in a stored version now that they are."""
        failpoint("commit_to_be_sent")
        with self._lock:
            for boot_id, part in self._releases.commit(release_id).items():
                link = self._links.get(boot_id)
                # A gateway that is away right now learns it from the next Open instead.
                if link is not None and link.connected:
                    self._send(link, pb.CoordinatorMessage(commit=pb.Commit(release_id=part)))
            self._tell_gateways()
        failpoint("commit_sent")

    def drop(self, base_version: int, outcome: Outcome, reason: str) -> None:
        """Forget a bucket everywhere."""
        message = pb.Drop(base_version=base_version, outcome=outcome, reason=reason)
        with self._lock:
            self._dropped[base_version] = message
            for link in self._attached():
                link.forget_bucket(base_version)
                self._send(link, pb.CoordinatorMessage(drop=message))

    def close(self, reason: str) -> None:
        """End the job at every gateway."""
        with self._lock:
            for link in self._attached():
                self._send(link, pb.CoordinatorMessage(close=pb.Close(reason=reason)))
            if self._opened is not None:
                self._closed = pb.CoordinatorMessage(
                    job_id=self._opened.job_id,
                    epoch=self._opened.epoch,
                    close=pb.Close(reason=reason),
                )
            self._opened = None

    def gateways(self) -> int:
        """Gateways attached at this moment."""
        with self._lock:
            return len(self._attached())

    # -- servicer ------------------------------------------------------------------------------

    def Attach(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.GatewayMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.CoordinatorMessage]:
        """Serve one connection of one gateway for as long as it lasts."""
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("body") != "hello":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a gateway says hello first")
        with self._lock:
            link = self._attach(first.hello)
            outgoing = link.outgoing
        reader = threading.Thread(
            target=self._read, args=(link, request_iterator, outgoing), daemon=True
        )
        reader.start()
        # When a gateway goes away gRPC stops asking this generator, so its end is not the place.
        context.add_callback(lambda: self._detach(link, outgoing))
        while (message := outgoing.get()) is not None:
            yield message

    def _attach(self, hello: pb.Hello) -> GatewayLink:
        link = self._links.get(hello.boot_id)
        if link is not None:
            link.reconnect()
        else:
            for other in list(self._links.values()):
                if other.gateway_id == hello.gateway_id:
                    self._lose(other)
            link = GatewayLink(hello.gateway_id, hello.boot_id)
            self._links[hello.boot_id] = link
        self._tell_gateways(again=True)
        log.info("gateway %s attached (boot %s)", hello.gateway_id, hello.boot_id)
        if self._opened is not None:
            self._send_open(link, self._opened)
        elif self._closed is not None:
            # It may have been away when its job ended.
            closed = pb.CoordinatorMessage()
            closed.CopyFrom(self._closed)
            self._send(link, closed)
        return link

    def _detach(
        self, link: GatewayLink, outgoing: queue.SimpleQueue[pb.CoordinatorMessage | None]
    ) -> None:
        outgoing.put(None)
        with self._lock:
            if link.outgoing is not outgoing or not link.connected:
                return  # it has already come back over a new connection, or this is known
            link.connected = link.ready = False
            link.disconnected_at_s = time.monotonic()
            self._tell_gateways()
            log.warning("gateway %s is away", link.gateway_id)

    def _read(
        self,
        link: GatewayLink,
        messages: Iterator[pb.GatewayMessage],
        outgoing: queue.SimpleQueue[pb.CoordinatorMessage | None],
    ) -> None:
        try:
            for message in messages:
                with self._lock:
                    if link.outgoing is outgoing and self._links.get(link.boot_id) is link:
                        link.heard_s = time.monotonic()
                        self._handle(link, message)
        except grpc.RpcError as error:
            log.info("gateway %s: connection ended (%s)", link.gateway_id, error)
        finally:
            outgoing.put(None)

    def _handle(self, link: GatewayLink, message: pb.GatewayMessage) -> None:
        opened = self._opened
        body = message.WhichOneof("body")
        if body == "heartbeat":
            link.check_ins_per_s = message.heartbeat.check_ins_per_s
            return
        if opened is None or message.job_id != opened.job_id or message.epoch != opened.epoch:
            return
        if body == "progress":
            self._on_progress(link, message.progress, message.sequence)
        elif body == "partial":
            self._releases.answer(message.partial)
            for bucket in message.partial.buckets:
                for task_id in bucket.task_ids:
                    link.forget(task_id)
            self._answered.notify_all()

    def _on_progress(self, link: GatewayLink, progress: pb.Progress, sequence: int) -> None:
        if not progress.snapshot and sequence <= link.last_progress:
            if sequence <= link.acknowledged:
                self._acknowledge(link)  # it came back before it had heard so
            return
        link.last_progress = max(link.last_progress, sequence)
        now_s = self.now_s()
        if progress.snapshot:
            self._reconcile(link, progress)
        for sessions in progress.sessions:  # before the updates with which a job may end
            if sessions.shape in SHAPES:  # a gateway of another version may know more of them
                self._events.put(SessionsEnded(now_s, sessions.shape, sessions.count))
        for leased in progress.leased:
            if leased.task_id not in link.leased:
                self._slots.take(link, leased.grant_id, list(self._links.values()))
            link.leased.add(leased.task_id)
            self._events.put(started_event(leased, now_s))
        for completed in progress.completed:
            link.leased.discard(completed.task_id)
            link.held[completed.task_id] = completed.base_version
            self._events.put(completed_event(completed, now_s))
        for ended in progress.ended:
            link.forget(ended.task_id)
            self._events.put(ended_event(ended, now_s))
        for refusal in progress.refusals:
            self._events.put(UpdatesRefused(now_s, refusal.reason_code, refusal.count))
        self._events.put(_Told(link.boot_id, link.last_progress))
        if progress.snapshot:
            self._bring_up_to_date(link, progress)

    def _reconcile(self, link: GatewayLink, snapshot: pb.Progress) -> None:
        """A snapshot is the truth: what it does not name is not there any more."""
        named = {leased.task_id for leased in snapshot.leased}
        named |= {completed.task_id for completed in snapshot.completed}
        gone = tuple(sorted(link.tasks - named))
        for task_id in gone:
            link.forget(task_id)
        if gone:
            self._events.put(TasksLost(self.now_s(), gone))

    def _bring_up_to_date(self, link: GatewayLink, snapshot: pb.Progress) -> None:
        link.ready = True
        leased_under = {leased.grant_id for leased in snapshot.leased}
        for grant_id in sorted(leased_under & self._slots.cancelled.keys()):
            # Cancelled while the gateway was away: what runs under it there is late.
            cancel = pb.Cancel(grant_id=grant_id, running_too=True)
            self._send(link, pb.CoordinatorMessage(cancel=cancel))
        of_closed_rounds = {
            done.base_version
            for done in snapshot.completed
            if done.grant_id in self._slots.cancelled
        }
        for base_version in sorted(of_closed_rounds & self._dropped.keys()):
            # Dropped while it was away; it has leased nothing since that could be in this bucket.
            self._send(link, pb.CoordinatorMessage(drop=self._dropped[base_version]))
        if self._model is not None:
            self._send(link, pb.CoordinatorMessage(set_model=self._model))
        self._send_grants(self._slots.offer_again(link))
        self._place()

    # -- placing, losing, sending ----------------------------------------------------------------

    def _place(self) -> None:
        self._send_grants(self._slots.place(self._ready()))

    def _balance(self) -> None:
        """Move slots from gateways that no device comes to; what they keep is granted anew."""
        with self._lock:
            if time.monotonic() - self._balanced_s < BALANCE_EVERY_S:
                return
            self._balanced_s = time.monotonic()
            ready = self._ready()
            for link, grant_id in self._slots.balance(ready):
                cancel = pb.Cancel(grant_id=grant_id, running_too=False)
                self._send(link, pb.CoordinatorMessage(cancel=cancel))
                grant, kept = self._slots.grant_of(grant_id), link.offered.get(grant_id, 0)
                if grant is not None and kept:
                    self._send_grants([(link, grant, kept)])
            starving = [link for link in ready if is_starving(link)]
            self._send_grants(self._slots.place(starving))

    def _ready(self) -> list[GatewayLink]:
        return [link for link in self._attached() if link.ready]

    def _send_grants(self, placed: Sequence[Placed]) -> None:
        for link, grant, count in placed:
            self._send(link, pb.CoordinatorMessage(grant=grant_message(grant, count)))

    def _tell_gateways(self, *, again: bool = False) -> None:
        """Tell every gateway whom to reckon with; nothing when nothing has changed."""
        known = {
            link.boot_id: pb.KnownGateway(
                gateway_id=link.gateway_id, boot_id=link.boot_id, attached=link.connected
            )
            for link in self._links.values()
        }
        if self._opened is not None:
            for boot_id in self._releases.undecided_at() - known.keys():
                known[boot_id] = pb.KnownGateway(boot_id=boot_id)
        told = pb.Gateways(known=[known[boot_id] for boot_id in sorted(known)])
        if again or told != self._told:
            self._told = told
            for link in self._attached():
                self._send(link, pb.CoordinatorMessage(gateways=told))

    def _lose_absent_gateways(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            for link in list(self._links.values()):
                if link.is_lost(now_s, self._lost_after_s, self._silent_after_s):
                    self._lose(link)

    def _lose(self, link: GatewayLink) -> None:
        log.warning("gateway %s (boot %s) is lost", link.gateway_id, link.boot_id)
        del self._links[link.boot_id]
        link.outgoing.put(None)
        if link.tasks:
            self._events.put(TasksLost(self.now_s(), tuple(sorted(link.tasks))))
        self._slots.take_back(link)
        self._tell_gateways()
        self._place()
        self._answered.notify_all()

    def _awaits(self, boot_id: str, release_id: str) -> bool:
        return boot_id in self._links and not self._releases.is_answered(release_id)

    def _acknowledge(self, link: GatewayLink) -> None:
        message = pb.Acknowledge(progress_sequence=link.acknowledged)
        self._send(link, pb.CoordinatorMessage(acknowledge=message))

    def _next(self, deadline_s: float | None) -> "Event | _Told":
        if deadline_s is None:
            return self._events.get()
        left_s = deadline_s - time.monotonic()
        return self._events.get(timeout=left_s) if left_s > 0 else self._events.get_nowait()

    def _send_release(self, link: GatewayLink, release_id: str, release: Release) -> None:
        message = pb.Release(release_id=release_id, base_versions=release.base_versions)
        self._send(link, pb.CoordinatorMessage(release=message))

    def _send_open(self, link: GatewayLink, opened: OpenJob) -> None:
        self._send(link, pb.CoordinatorMessage(open=open_message(opened, self._releases)))

    def _attached(self) -> list[GatewayLink]:
        return [link for link in self._links.values() if link.connected]

    def _send(self, link: GatewayLink, message: pb.CoordinatorMessage) -> None:
        self._sequence += 1
        message.sequence = self._sequence
        if self._opened is not None:
            message.job_id, message.epoch = self._opened.job_id, self._opened.epoch
        link.outgoing.put(message)
