"""Which clients are held out for evaluation: by a hash of their id, so the split never moves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_runtime.errors import FlintError

HELDOUT_IN = 5


class TooFewClients(FlintError):
    """A data set has a single client, so none can be held out."""

    code = "FLN-1107"


class SingleClass(FlintError):
    """Training or held-out clients have labels of one class only."""

    code = "FLN-1108"


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Records of one client.

    Attributes:
        records: All.
        positives: Those labelled 1.
    """

    records: int
    positives: int

    @property
    def has_both(self) -> bool:
        """Whether both labels occur."""
        return 0 < self.positives < self.records


def split_hash(set_name: str, client_id: str) -> int:
    """First 12 hex digits of ``sha256("flint-dev-v1|<set>:<client>")`` as a number."""
    digest = hashlib.sha256(f"flint-dev-v1|{set_name}:{client_id}".encode()).hexdigest()
    return int(digest[:12], 16)


def is_heldout(set_name: str, client_id: str) -> bool:
    """Whether a client is held out: its `split_hash` is a multiple of five.

    >>> is_heldout("msg_irc", "1881"), is_heldout("msg_irc", "1")
    (True, False)
    """
    return split_hash(set_name, client_id) % HELDOUT_IN == 0


def heldout_clients(set_name: str, labels: Mapping[str, LabelCounts]) -> frozenset[str]:
    """Clients held out by `is_heldout`, mended where a small data set leaves a side empty.

    When the rule holds out no client, the client with the smallest hash is held out, of those that
    have both labels if there are any; when it holds out all, the one with the largest hash trains.

    Args:
        set_name: Name of the data file without its ending.
        labels: Label counts by client id.

    Raises:
        TooFewClients: If there are fewer than two clients.
        SingleClass: If training or held-out records all have the same label.
    """
    if len(labels) < 2:
        raise TooFewClients(
            f"data set {set_name} has only one client, so none can be held out to measure the "
            "model on; give data of at least two clients, or another client field"
        )
    by_hash = sorted(labels, key=lambda client: (split_hash(set_name, client), client))
    heldout = [client for client in by_hash if is_heldout(set_name, client)]
    if not heldout:
        heldout = [c for c in by_hash if labels[c].has_both][:1] or by_hash[:1]
    if len(heldout) == len(by_hash):
        heldout.remove(by_hash[-1])
    kept = set(heldout)
    _require_both_classes(set_name, "held-out", heldout, labels)
    training = [client for client in by_hash if client not in kept]
    _require_both_classes(set_name, "training", training, labels)
    return frozenset(kept)


def _require_both_classes(
    set_name: str, side: str, clients: Sequence[str], labels: Mapping[str, LabelCounts]
) -> None:
    records = sum(labels[client].records for client in clients)
    positives = sum(labels[client].positives for client in clients)
    if 0 < positives < records:
        return
    raise SingleClass(
        f"data set {set_name}: all {records} records of its {len(clients)} {side} clients are "
        f"labelled {1 if positives else 0}, so nothing can be "
        f"{'measured' if side == 'held-out' else 'learnt'}; give data of more clients, with both "
        "labels"
    )
