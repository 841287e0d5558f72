"""Check-ins of virtual devices: who is given a task, and when each device comes again.

Selection, pace steering and the counting of devices are the gateway's own code.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.coordination.selection import takes_task
from server.gateway.grants import GrantBook, OpenGrant
from server.gateway.pace import PaceSteering
from server.gateway.population import Population
from server.job import Job
from simulation.virtual_clients import VirtualClients, next_tick


class CheckIns:
    """What a gateway answers at check-ins, and what devices make of it.

    Args:
        clients: Who checks in.
        pace: The gateway's.
        grants: Slots there are.
        seed: Of selection and pace.
    """

    def __init__(
        self, clients: VirtualClients, pace: PaceSteering, grants: GrantBook, seed: int
    ) -> None:
        self._clients = clients
        self._pace = pace
        self._grants = grants
        self._seed = seed
        self._population = Population(pace)
        self._count = np.zeros(len(clients), np.int64)
        self._participated_s = np.full(len(clients), -math.inf)

    def use(self, job: Job) -> None:
        """Check in for this job."""
        self._selection = job.selection
        hours = job.participation.user.min_hours_between_participations
        self._rest_s = 3600.0 * hours if hours else -math.inf

    def first_s(self) -> NDArray[np.float64]:
        """First check-in of each client, infinite where there is none; shape ``(clients,)``."""
        return self._clients.first_check_ins()

    def take(self, client: int, now_s: float, slots: int) -> OpenGrant | None:
        """Note a check-in; returns the grant of which the client takes a slot.

        Args:
            slots: Open now, to whomever.
        """
        device_id = str(client)
        self._population.see(device_id, now_s, slots)
        check_in = int(self._count[client])
        self._count[client] += 1
        eligible = self._population.see_eligible(device_id, now_s)
        grant = self._grants.offer(device_id) if slots > 0 else None
        if grant is None or not takes_task(
            self._selection,
            open_slots=slots,
            eligible_devices=eligible,
            seed=self._seed,
            device_id=device_id,
            check_in=check_in,
        ):
            return None
        self._grants.take(grant, device_id)
        return grant

    def participated(self, client: int, now_s: float) -> None:
        """Note that a client handed in an update: its rest begins."""
        self._participated_s[client] = now_s

    def next_s(self, client: int, now_s: float, slots: int, *, after_task: bool) -> float:
        """When a client that has no task now checks in again; infinite for never.

        That is when its system wakes it, but not before it was told to come, nor before it may
        take part again.

        Args:
            slots: Open as it was told.
            after_task: It was told as it ended a task, otherwise at a check-in.
        """
        count = int(self._count[client])
        wait_s = self._clients.interval_s(client, count)
        latest_told_s = self._population.interval_s(slots) * (1.0 + self._pace.jitter)
        if latest_told_s > wait_s:  # drawing costs more than all the rest of a check-in
            device_id = str(client)
            ordinal = self._population.check_ins(device_id) - (0 if after_task else 1)
            told_s = self._population.come_back_after_s(device_id, ordinal, self._seed, slots)
            wait_s = max(wait_s, told_s)
        rested_s = float(self._participated_s[client]) + self._rest_s
        return self._clients.next_check_in(client, next_tick(max(now_s + wait_s, rested_s)), count)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "population": self._population.state(),
            "count": self._count,
            "participated_s": self._participated_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after `state`."""
        self._population.restore(state["population"])
        self._count = state["count"].copy()
        self._participated_s = state["participated_s"].copy()
