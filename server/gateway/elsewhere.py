"""What became of updates that other gateway processes leased."""

import grpc

from device_runtime.protocol import device_pb2 as pb
from server.gateway import peers_pb2
from server.gateway.known_gateways import KnownGateways
from server.gateway.peers import PeerGone, Peers, PeerSilent
from server.gateway.tokens import TaskClaims

_SETTLE_S = 3.0

_UNKNOWN = pb.Settlement.STATE_UNSPECIFIED


class Elsewhere:
    """Asks the other processes, and says when nobody can tell yet.

    An update of a process that has ended may be folded anew by one that remains, and must be
    folded once. So it is left alone until its process is given up (then the stored outcomes are
    complete as far as it goes), and until every other process the coordinator reckons with has said
    that it does not hold it: one of them may have folded it anew before, and be away now.
    """

    def __init__(self, known: KnownGateways, peers: Peers | None) -> None:
        """Assemble.

        Args:
            known: All gateways.
            peers: To ask them; None where there is one gateway at a time.
        """
        self._known = known
        self._peers = peers

    def settle(
        self, claims: TaskClaims, device_id: str, update: pb.PendingUpdate
    ) -> pb.Settlement | None:
        """What a device is told of an update this process knows nothing of.

        None leaves it to the stored outcomes, which may only be asked after this: it was leased
        here, or is nobody's any more.
        """
        if self._known.is_own(claims.boot_id):
            return None
        held = pb.Settlement(task_id=claims.task_id, state=pb.Settlement.HELD)
        try:
            owner = self._ask_owner(claims, device_id, update)
            if owner is not None:
                return owner
            other = self.who_knows(claims, device_id, update)
        except PeerSilent:
            return held
        if other is None:
            return None
        # One that is folding it at this moment says UPLOAD_AGAIN; the device has only to wait.
        return held if other[1].state == pb.Settlement.UPLOAD_AGAIN else other[1]

    def who_knows(
        self, claims: TaskClaims, device_id: str, update: pb.PendingUpdate
    ) -> tuple[str, pb.Settlement] | None:
        """The process that knows of an update whose own has ended, and what it says of it.

        None when nobody does.

        Raises:
            PeerSilent: If that cannot be told yet.
        """
        if not self._known.is_given_up(claims.boot_id):
            raise PeerSilent
        for boot_id in self._known.others():
            try:
                found = self._ask(boot_id, device_id, update)
            except PeerGone as error:
                raise PeerSilent from error  # it ended, and is not given up yet
            if found.state != _UNKNOWN:
                return boot_id, found
        return None

    def _ask_owner(
        self, claims: TaskClaims, device_id: str, update: pb.PendingUpdate
    ) -> pb.Settlement | None:
        if self._known.is_given_up(claims.boot_id) and self._peers is None:
            return None
        try:
            return self._ask(claims.boot_id, device_id, update)
        except PeerGone:
            return None

    def _ask(self, boot_id: str, device_id: str, update: pb.PendingUpdate) -> pb.Settlement:
        if self._peers is None:
            raise PeerSilent
        request = peers_pb2.SettleRequest(device_id=device_id, update=update)
        try:
            found: pb.Settlement = self._peers.call(
                boot_id, lambda stub: stub.Settle(request, timeout=_SETTLE_S)
            )
        except grpc.RpcError as error:
            raise PeerSilent from error
        return found
