"""What became of the updates that devices keep: asked at check-ins, and by other gateways."""

import logging
from collections.abc import Callable
from typing import Protocol

from device_runtime.protocol import device_pb2 as pb
from server.gateway.answers import OutcomeStore, OutcomesUnreachable
from server.gateway.state import GatewayState
from server.gateway.tokens import TaskClaims, TokenMint

log = logging.getLogger(__name__)


class AsksElsewhere(Protocol):
    """The other gateway processes."""

    def settle(
        self, claims: TaskClaims, device_id: str, update: pb.PendingUpdate
    ) -> pb.Settlement | None:
        """What they say; None leaves it to the stored outcomes."""
        ...


class PendingUpdates:
    """Settles updates out of this process's state, then the others', then the stored outcomes."""

    def __init__(
        self,
        state: GatewayState,
        mint: TokenMint,
        outcomes: OutcomeStore,
        elsewhere: AsksElsewhere | None,
        clock: Callable[[], float],
    ) -> None:
        """Assemble.

        Args:
            state: Of this process.
            mint: Opens task tokens.
            outcomes: The stored ones.
            elsewhere: The other processes; None where there are none.
            clock: Server's clock, seconds since the epoch.
        """
        self._state = state
        self._mint = mint
        self._outcomes = outcomes
        self._elsewhere = elsewhere
        self._clock = clock

    def settle(self, device_id: str, update: pb.PendingUpdate, now_s: float) -> pb.Settlement:
        """What an authenticated device is told of an update it keeps."""
        claims = self._mint.open_task(update.task_token)
        if claims is None or (claims.device_id, claims.task_id) != (device_id, update.task_id):
            return pb.Settlement(
                task_id=update.task_id, state=pb.Settlement.DROPPED, reason="unknown_task"
            )
        settled = self._state.settle(claims, update.payload_sha256)
        if settled is None and self._elsewhere is not None:
            settled = self._elsewhere.settle(claims, device_id, update)
        if settled is not None:
            return settled
        try:
            stored = self._outcomes.find(claims.task_id)
        except OutcomesUnreachable as error:
            log.error("%s", error)
            return pb.Settlement(task_id=update.task_id, state=pb.Settlement.HELD)
        return self._state.settle_unknown(claims, stored, now_s)

    def settle_here(self, device_id: str, update: pb.PendingUpdate) -> pb.Settlement:
        """What another gateway is told: of an update leased elsewhere, what is known here only.

        Its state is ``STATE_UNSPECIFIED`` when that is nothing.
        """
        claims = self._mint.open_task(update.task_token)
        if claims is None or claims.boot_id == self._state.boot_id:
            return self.settle(device_id, update, self._clock())
        return self._state.settle(claims, update.payload_sha256) or pb.Settlement(
            task_id=update.task_id
        )

    def is_leased_here(self, task_token: bytes) -> bool:
        """Whether a token was made by this process; also if it is none at all."""
        claims = self._mint.open_task(task_token)
        return claims is None or claims.boot_id == self._state.boot_id

    def knows(self, claims: TaskClaims) -> bool:
        """Whether a task is leased, folded or answered here."""
        return not self._state.must_ask_store(claims)
