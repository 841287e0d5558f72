"""One client's records, prepared for many passes: what depends on the records alone, done once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bags:
    """Weighted sums of rows: bag i is ``sum of weight[j] * rows[j]`` over its members j.

    Attributes:
        rows: Row of each member, bag by bag, shape ``(members,)``.
        first: Where each bag's members begin, shape ``(bags,)``.
        weight: Shape ``(members,)``.
    """

    rows: Tensor
    first: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class TouchedRows:
    """The table rows that a batch uses, each with its uses.

    Attributes:
        rows: Ascending, shape ``(touched,)``.
        uses: A bag of the batch's records for each of them.
    """

    rows: Tensor
    uses: Bags


@dataclass(frozen=True, slots=True)
class BagBatch:
    """A batch of records of bucket ids, in both directions.

    Attributes:
        records: A bag of table rows for each record.
        touched: None outside training.
    """

    records: Bags
    touched: TouchedRows | None = None


Batch = Tensor | BagBatch


class DenseRecords:
    """Records of features, copied once so that memory is aligned alike in every process."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self._x = torch.tensor(x)

    def all(self) -> Tensor:
        """Every record, in order."""
        return self._x

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[Tensor]:
        """Records in this order, ``batch_size`` at a time; the last batch may be short."""
        return iter(torch.split(self._x[torch.from_numpy(order)], batch_size))


@dataclass(frozen=True, slots=True)
class BagRecords:
    """Records of bucket ids, without padding, their ids numbered among those that occur.

    A client's records touch few rows of a large table; training on these rows alone gives the
    same numbers, because a row that no record uses has no gradient and, in FedProx, no pull.

    Attributes:
        used_buckets: Distinct bucket ids, ascending, shape ``(used,)``.
        rows: Position in ``used_buckets`` of each used slot, record by record, ``(slots,)``.
        lengths: Used slots of each record, shape ``(records,)``.
        first_slot: Where each record's slots begin, shape ``(records,)``.
        slot_weight: Shape ``(slots,)``, float32.
    """

    used_buckets: NDArray[np.int64]
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    first_slot: NDArray[np.int64]
    slot_weight: NDArray[np.float32]

    @classmethod
    def of(cls, x: NDArray[np.int32], buckets: int) -> Self:
        """Prepare records.

        Args:
            x: Bucket ids, shape ``(records, slots)``; -1 marks an unused slot.
            buckets: Rows of the table; every id is below.
        """
        used = x >= 0
        ids = x[used]
        lengths = used.sum(axis=1)
        # Faster than sorting: a table is not much larger than what a client's records use of it.
        occurs = np.zeros(buckets, np.bool_)
        occurs[ids] = True
        used_buckets = np.flatnonzero(occurs)
        number = np.empty(buckets, np.int64)
        number[used_buckets] = np.arange(used_buckets.size)
        root = np.sqrt(np.maximum(lengths, 1).astype(np.float32))
        weight = np.repeat(np.float32(1.0) / root, lengths)
        return cls(used_buckets, number[ids], lengths, np.cumsum(lengths) - lengths, weight)

    def all(self) -> BagBatch:
        """Every record, in order."""
        columns = (self.rows, self.first_slot, self.slot_weight)
        return BagBatch(Bags(*map(torch.from_numpy, columns)))

    def batches(self, order: NDArray[np.int64], batch_size: int) -> Iterator[BagBatch]:
        """Records in this order, ``batch_size`` at a time; the last batch may be short.

        The gradient of a table row is the sum over its uses: a bag of records. So the batch is
        turned round here, a whole epoch in one sort.
        """
        lengths = self.lengths[order]
        ends = np.cumsum(lengths)
        begins = ends - lengths
        slots = np.arange(self.rows.size)
        from_slot = np.repeat(self.first_slot[order] - begins, lengths) + slots
        rows, weight = self.rows[from_slot], self.slot_weight[from_slot]
        record = np.repeat(np.arange(order.size), lengths)
        batch = record // batch_size

        key = batch * self.used_buckets.size + rows
        by_row = np.argsort(key, kind="stable")
        key = key[by_row]
        first_use = np.flatnonzero(np.diff(key, prepend=-1))
        touched_batch, touched = np.divmod(key[first_use], max(self.used_buckets.size, 1))

        batch_count = -(-order.size // batch_size)
        slots_in = np.bincount(batch, minlength=batch_count)
        touched_in = np.bincount(touched_batch, minlength=batch_count)
        slot_begin = np.cumsum(slots_in) - slots_in
        starts = np.arange(0, order.size, batch_size)
        records_in = np.diff(np.append(starts, order.size))
        bags = map(
            Bags,
            _split(rows, slots_in),
            _split(begins - np.repeat(slot_begin, records_in), records_in),
            _split(weight, slots_in),
        )
        uses = map(
            Bags,
            _split((record - batch * batch_size)[by_row], slots_in),
            _split(first_use - np.repeat(slot_begin, touched_in), touched_in),
            _split(weight[by_row], slots_in),
        )
        return map(BagBatch, bags, map(TouchedRows, _split(touched, touched_in), uses))


Prepared = DenseRecords | BagRecords


def _split(column: NDArray[Any], sizes: NDArray[np.int64]) -> tuple[Tensor, ...]:
    return torch.split(torch.from_numpy(column), sizes.tolist())
