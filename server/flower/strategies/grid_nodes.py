"""The nodes behind the `Grid` of somebody's own ServerApp."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.superlink.grid import HttpGrid

from server.flower.node_messages import NodeReply, SuperLinkBusy
from server.flower.records import read_message
from server.flower.reply_inbox import ReplyInbox
from server.flower.strategies.array_layout import total_bytes
from server.flower.superlink import check_flower_version


class GridNodes:
    """Nodes of any `Grid`, by its public methods; a `Nodes`."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def online_nodes(self) -> Sequence[int]:
        """See `Nodes.online_nodes`."""
        return list(self._grid.get_node_ids())

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Send messages; returns an id each, None for one that was refused.

        Raises:
            SuperLinkBusy: Nothing that was sent counts.
        """
        if not messages:
            return []
        sent = [message_id or None for message_id in self._grid.push_messages(messages)]
        if len(sent) == len(messages):
            return sent
        # A grid may leave the refused ones out, so that ids and messages do not pair up any more.
        known = set(sent)
        ids = [message.metadata.message_id for message in messages]
        return [message_id if message_id in known else None for message_id in ids]

    def pull(self, message_ids: Sequence[str], *, max_reply_bytes: int) -> Sequence[NodeReply]:
        """See `Nodes.pull`."""
        if not message_ids:
            return []
        return [
            _read(message, max_reply_bytes) for message in self._grid.pull_messages(message_ids)
        ]


class HttpGridNodes(GridNodes):
    """Nodes of a SuperLink: replies are read one by one, within a limit, and never waited for."""

    def __init__(self, grid: HttpGrid) -> None:
        super().__init__(grid)
        check_flower_version()
        self._inbox = ReplyInbox(grid._runtime_client, grid.run.run_id)

    def online_nodes(self) -> Sequence[int]:
        """See `Nodes.online_nodes`."""
        with _busy_when_refused():
            return super().online_nodes()

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """See `GridNodes.send`."""
        with _busy_when_refused():
            return super().send(messages)

    def pull(self, message_ids: Sequence[str], *, max_reply_bytes: int) -> Sequence[NodeReply]:
        """See `Nodes.pull`."""
        return self._inbox.pull(message_ids, max_reply_bytes)


def nodes_of(grid: Grid) -> GridNodes:
    """The nodes of a ServerApp's grid; each call gives an inbox of its own."""
    return HttpGridNodes(grid) if isinstance(grid, HttpGrid) else GridNodes(grid)


def _read(message: Message, max_reply_bytes: int) -> NodeReply:
    message_id = message.metadata.reply_to_message_id
    if not message.has_content():
        return read_message(message_id, message, 0)
    records = message.content.array_records.values()
    size = sum(total_bytes(list(record.values())) for record in records)
    if size > max_reply_bytes:
        return NodeReply(message_id, too_large=True, reply_bytes=size)
    return read_message(message_id, message, size)


@contextmanager
def _busy_when_refused() -> Iterator[None]:
    """Flower itself tries again while nobody answers; an answer that is an error is left to us."""
    try:
        yield
    except httpx.HTTPError as error:
        raise SuperLinkBusy(f"{type(error).__name__}: {error}") from error
