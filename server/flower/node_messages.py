"""What goes to a SuperNode and comes back, without any Flower type in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ConfigValue = int | float | str | bytes


class RunEnded(Exception):
    """The Flower run is over, so nothing can be sent or received any more."""


class SuperLinkBusy(Exception):
    """SuperLink did not answer this time; the same call may be made again."""


@dataclass(frozen=True, slots=True)
class NodeTask:
    """One training task for one node.

    Attributes:
        arrays_name, config_name: Names of the two records it is sent in.
        parameters: Base version, by parameter name, in wire order. Tasks of one base version share
            the mapping object, so that it is serialised once.
        secure: Of a secure job: `device_runtime.flower_records.SecureKey`; None for others.
        ttl_s: Flower answers for the node when it has not answered in this time.
    """

    node_id: int
    arrays_name: str
    config_name: str
    parameters: Mapping[str, NDArray[np.float32]]
    config: Mapping[str, ConfigValue]
    ttl_s: float
    group_id: str
    secure: Mapping[str, ConfigValue] | None = None


@dataclass(frozen=True, slots=True)
class NodeArray:
    """One array of a reply, as it came: nothing about it is checked.

    Attributes:
        dtype: Name as numpy writes it, e.g. ``"float32"``.
        data: Little-endian C-order bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class NodeReply:
    """What came back for one task: records, or Flower's error.

    Attributes:
        message_id: Of the task's message, as `NodeGrid.push` gave it.
        error_code: Flower's error code; None when records came back.
        malformed: Why the records could not be read; None when they could.
        too_large: The reply is larger than the limit and was not read.
        arrays: Records of arrays, by record name.
        values: Metric and config records, by record name.
        metric_names: Which of `values` are metric records.
        reply_bytes: Size of all that was received for this reply.
    """

    message_id: str
    error_code: int | None = None
    error_reason: str = ""
    malformed: str | None = None
    too_large: bool = False
    arrays: Mapping[str, Sequence[NodeArray]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    metric_names: tuple[str, ...] = ()
    reply_bytes: int = 0


class Nodes(Protocol):
    """The nodes of one Flower run, and what they answer."""

    def online_nodes(self) -> Sequence[int]:
        """Ids of the nodes that are online.

        Raises:
            RunEnded, SuperLinkBusy: See there.
        """
        ...

    def pull(self, message_ids: Sequence[str], *, max_reply_bytes: int) -> Sequence[NodeReply]:
        """Replies that are complete by now, each given once.

        Args:
            message_ids: Tasks still waiting for a reply.
            max_reply_bytes: Larger replies are not read to their end.

        Raises:
            RunEnded, SuperLinkBusy: See there.
        """
        ...


class NodeGrid(Nodes, Protocol):
    """Nodes that run our own ClientApp."""

    def push(self, tasks: Sequence[NodeTask]) -> Sequence[str | None]:
        """Send tasks; returns a message id each, None for a node that is gone.

        Raises:
            RunEnded, SuperLinkBusy: Nothing that was sent counts.
        """
        ...
