"""The nodes of a virtual SuperLink: who is online when, and what a message costs its device."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.app.message_type import MessageType

from simulation.durations import TaskDuration, dropout_after_s
from simulation.random_streams import RandomStreams
from simulation.traces.device_profiles import FEDSCALE_TRAINING_FACTOR
from simulation.world import ClientDevices, World

FIRST_NODE_ID = 2
"""Node ids are ``client + 2``: Flower keeps 0 for nobody and 1 for the SuperLink."""

NODE_POLL_S = 3.0
"""A SuperNode without work asks for it every 3 s (flwr 1.41.0, supernode/start_client_internal)."""

_REPEATS_WAITED = 4
"""After so many repeats of the longest trace without enough nodes at once, there never will be."""


@dataclass(frozen=True)
class Nodes:
    """Clients as SuperNodes, numbered from 0, each on its traced device with its model and links.

    Everything is a pure function of world, seed and arguments; a client's draws are keyed by how
    many messages it has taken, so they do not depend on what others do.

    Attributes:
        dropout_per_hour: Hazard of losing a task for reasons no trace tells.
        local_epochs: How often a task of training passes over its examples.
    """

    world: World
    devices: ClientDevices
    dropout_per_hour: float
    local_epochs: int
    streams: RandomStreams

    def __len__(self) -> int:
        return len(self.devices.device)

    def client_of(self, node_id: int) -> int | None:
        """Client of a node id, or None if no node has it."""
        client = node_id - FIRST_NODE_ID
        return client if 0 <= client < len(self) else None

    def window(self, client: int, t: float) -> tuple[float, float]:
        """Window open at ``t``, else the next, else infinities."""
        return self.world.trace.window(int(self.devices.device[client]), t)

    def is_online(self, client: int, t: float) -> bool:
        """Whether the node is connected."""
        return self.window(client, t)[0] <= t

    def window_end_s(self, client: int, t: float) -> float:
        """Until when the node stays connected from ``t`` on; ``t`` itself if it is not."""
        start_s, end_s = self.window(client, t)
        return end_s if start_s <= t else t

    def next_poll_s(self, client: int, t: float, ordinal: int) -> float:
        """When an idle node next asks for messages: within 3 s if online, else as it connects."""
        start_s, end_s = self.window(client, t)
        if start_s > t:
            return start_s
        poll_s = t + NODE_POLL_S * self.streams["flower/poll"].uniform(client, ordinal)
        return poll_s if poll_s < end_s else self.window(client, end_s)[0]

    def transfer_bits_per_s(self, client: int, ordinal: int) -> tuple[float, float]:
        """Speed of this task's transfers, down and up."""
        links, stream = self.world.bandwidth, self.streams["bandwidth"]
        return (
            links.down.bits_per_s(
                int(self.devices.down_link[client]), stream.uniform(client, ordinal)
            ),
            links.up.bits_per_s(
                int(self.devices.up_link[client]), stream.uniform(client, ordinal, 1)
            ),
        )

    def compute_s(self, client: int, ordinal: int, message: Message, examples: int) -> float:
        """Seconds the device computes on a message.

        Training costs the device model's time per example; evaluation is a forward pass alone, a
        third of it (FedScale's factor); queries cost nothing.
        """
        category = message.metadata.message_type.partition(".")[0]
        if category not in {MessageType.TRAIN, MessageType.EVALUATE}:
            return 0.0
        per_example_s = self.world.profiles.per_example_s(
            int(self.devices.device_model[client]),
            self.streams["per_example_s"].uniform(client, ordinal),
        )
        if category == MessageType.EVALUATE:
            return per_example_s / FEDSCALE_TRAINING_FACTOR * examples
        return per_example_s * (self.local_epochs * examples)

    def dropout_s(self, client: int, ordinal: int) -> float:
        """Seconds of work after which the task is lost; infinite without a hazard."""
        if self.dropout_per_hour <= 0:
            return math.inf
        draw = self.streams["dropout"].exponential(client, ordinal)
        return dropout_after_s(draw, self.dropout_per_hour)

    def longest_wait_s(self) -> float:
        """How long waiting for nodes can be worth while; beyond, nothing new will happen."""
        trace = self.world.trace
        periods_s = trace.period_s[np.isfinite(trace.period_s)]
        return max(trace.horizon_s, _REPEATS_WAITED * float(periods_s.max(initial=0.0)))


def task_duration_of(
    bytes_down: int, bits_per_s: tuple[float, float], compute_s: float, bytes_up: int
) -> TaskDuration[float]:
    """Phases of a task: transfers of real bytes, and computing between (FLINT, section 3.4)."""
    down_bits_per_s, up_bits_per_s = bits_per_s
    return TaskDuration(
        download_s=bytes_down * 8.0 / down_bits_per_s,
        train_s=compute_s,
        upload_s=bytes_up * 8.0 / up_bits_per_s,
    )


class OnlineNodes:
    """Which nodes are online, kept up to date as time moves on.

    A step a change, not a look-up of every node at every question.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        starts_s, ends_s = nodes.world.trace.windows(nodes.devices.device, 0.0)
        self._is_online = starts_s <= 0.0
        changes_s = np.where(self._is_online, ends_s, starts_s)
        some = np.flatnonzero(np.isfinite(changes_s))
        self._changes = list(zip(changes_s[some].tolist(), some.tolist(), strict=True))
        heapq.heapify(self._changes)
        self._count = int(self._is_online.sum())

    def at(self, t: float) -> Sequence[int]:
        """Clients online at ``t``, ascending. Times are asked in order."""
        self._move(t)
        online: list[int] = np.flatnonzero(self._is_online).tolist()
        return online

    def count(self, t: float) -> int:
        """How many are online at ``t``."""
        self._move(t)
        return self._count

    def next_change_s(self) -> float:
        """When a node next comes or goes; infinite for never."""
        return self._changes[0][0] if self._changes else math.inf

    def _move(self, t: float) -> None:
        changes = self._changes
        while changes and changes[0][0] <= t:
            at_s, client = changes[0]
            start_s, end_s = self._nodes.window(client, at_s)
            is_online = start_s <= at_s
            self._count += int(is_online) - int(self._is_online[client])
            self._is_online[client] = is_online
            next_s = end_s if is_online else start_s
            if next_s == math.inf:
                heapq.heappop(changes)
            else:
                heapq.heapreplace(changes, (next_s, client))
