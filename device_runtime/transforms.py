"""The closed list of transforms: identity, hash, vocab, bucketize, normalize, clip, embed_lookup.

No user code runs on devices: what a feature's values go through is named here and nowhere else, so
that another language can be proven equal (golden files in ``tests/device_runtime/golden``). Cloud
and device run this very file. Each transform maps every value by itself, so columns may be cut in
any way. Arithmetic is IEEE 754 float64, round to nearest, ties to even, one rounding an operation.

A missing value stays missing, unless the transform names what ``missing`` becomes; NaN is missing
(see `Column`). Integers that become text are their decimal digits, with a minus sign if negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, ClassVar, TypeVar

import mmh3
import numpy as np
from numpy.typing import NDArray

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.transform_assets import Asset, Assets, EmbeddingTable, InvalidAsset, Vocabulary
from device_runtime.transform_parameters import (
    MAX_BOUNDARIES,
    MAX_BUCKETS,
    MAX_SEED,
    InvalidTransform,
    check_id,
    check_integer,
    check_text,
    number,
    optional_number,
    wrong,
)

_NUMBERS = frozenset({Kind.INT, Kind.FLOAT})
_TOKENS = frozenset({Kind.STRING, Kind.INT})
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Identity:
    """Hands values on as they are.

    Attributes:
        missing: What a missing value becomes: text, an integer or a float, as the column holds.
            None: it stays missing.
    """

    op: ClassVar[str] = "identity"
    takes: ClassVar[frozenset[Kind]] = frozenset(Kind)

    missing: str | int | float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.missing, bool) or not isinstance(self.missing, str | int | float | None):
            raise wrong(f"{self.op}.missing", self.missing, "text, an integer or a float")
        if isinstance(self.missing, str):
            check_text(f"{self.op}.missing", self.missing, may_be_empty=True)
        elif isinstance(self.missing, float):
            object.__setattr__(self, "missing", number(f"{self.op}.missing", self.missing))
        elif self.missing is not None:
            check_integer(f"{self.op}.missing", self.missing, -(2**63), 2**63 - 1)

    def gives(self, kind: Kind) -> Kind:
        """Kind of what comes out for ``kind``."""
        fits = {
            Kind.STRING: str,
            Kind.INT: int,
            Kind.FLOAT: int | float,
        }[kind]
        if self.missing is not None and not isinstance(self.missing, fits):
            raise InvalidTransform(
                f"identity.missing is {self.missing!r}, the column holds {kind} values; "
                "give one of their kind"
            )
        return kind

    def apply(self, column: Column, _: Assets) -> Column:
        """The same values."""
        self.gives(column.kind)
        return column if self.missing is None else column.filled(self.missing)


@dataclass(frozen=True, slots=True)
class Hash:
    """Bucket of a token: MurmurHash3 x86 32-bit of its UTF-8 bytes, modulo ``buckets``.

    The same function as `device_runtime.hashing.hash_bucket`, which made the training data.

    Attributes:
        buckets: 1 to 2**31 - 1.
        seed: 0 to 2**32 - 1.
        missing: Integer that a missing value becomes; None: it stays missing.
    """

    op: ClassVar[str] = "hash"
    takes: ClassVar[frozenset[Kind]] = _TOKENS

    buckets: int
    seed: int = 0
    missing: int | None = None

    def __post_init__(self) -> None:
        check_integer(f"{self.op}.buckets", self.buckets, 1, MAX_BUCKETS)
        check_integer(f"{self.op}.seed", self.seed, 0, MAX_SEED)
        check_id(f"{self.op}.missing", self.missing)

    def gives(self, _: Kind) -> Kind:
        """Integers."""
        return Kind.INT

    def apply(self, column: Column, _: Assets) -> Column:
        """Bucket of each token."""
        tokens = _tokens(column)
        ids = _hash_buckets(tokens, self.buckets, self.seed).reshape(column.values.shape)
        return _ids_column(ids, column.missing, self.missing)


@dataclass(frozen=True, slots=True)
class Vocab:
    """Id of a token in a vocabulary: its line's number, from 0.

    Attributes:
        asset: Name of the vocabulary.
        unknown: Id of every token that is not in it. Give this or ``hash_buckets``.
        hash_buckets: Unknown tokens become the vocabulary's length plus their hash bucket of these.
        seed: Of that hash.
        missing: Integer that a missing value becomes; None: it stays missing.
    """

    op: ClassVar[str] = "vocab"
    takes: ClassVar[frozenset[Kind]] = _TOKENS

    asset: str
    unknown: int | None = None
    hash_buckets: int | None = None
    seed: int = 0
    missing: int | None = None

    def __post_init__(self) -> None:
        check_text(f"{self.op}.asset", self.asset)
        if (self.unknown is None) == (self.hash_buckets is None):
            raise InvalidTransform(
                "vocab needs one of unknown (an id) and hash_buckets (a number of buckets), to say "
                "what a token becomes that is not in the vocabulary"
            )
        check_id(f"{self.op}.unknown", self.unknown)
        if self.hash_buckets is not None:
            check_integer(f"{self.op}.hash_buckets", self.hash_buckets, 1, MAX_BUCKETS)
        check_integer(f"{self.op}.seed", self.seed, 0, MAX_SEED)
        check_id(f"{self.op}.missing", self.missing)

    def gives(self, _: Kind) -> Kind:
        """Integers."""
        return Kind.INT

    def apply(self, column: Column, assets: Assets) -> Column:
        """Id of each token."""
        vocabulary = _asset(assets, self.asset, Vocabulary)
        tokens = _tokens(column)
        ids = np.fromiter(map(vocabulary.ids.get, tokens, repeat(_UNKNOWN)), np.int64, len(tokens))
        where = np.flatnonzero(ids == _UNKNOWN)
        if self.unknown is not None:
            ids[where] = self.unknown
        elif self.hash_buckets is not None:
            unknown = [tokens[place] for place in where.tolist()]
            buckets = _hash_buckets(unknown, self.hash_buckets, self.seed)
            ids[where] = len(vocabulary.tokens) + buckets
        return _ids_column(ids.reshape(column.values.shape), column.missing, self.missing)


@dataclass(frozen=True, slots=True)
class Bucketize:
    """Number of boundaries below a number; from 0 to ``len(boundaries)``.

    Attributes:
        boundaries: Finite, strictly rising, 1 to 4096 of them.
        side: ``right``: a number equal to a boundary counts it, so a bucket is ``[low, high)``;
            ``left``: it does not, ``(low, high]``. The words are numpy.searchsorted's.
        missing: Integer that a missing value becomes; None: it stays missing.
    """

    op: ClassVar[str] = "bucketize"
    takes: ClassVar[frozenset[Kind]] = _NUMBERS

    boundaries: tuple[float, ...]
    side: str = "right"
    missing: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.boundaries, list | tuple) or not (
            1 <= len(self.boundaries) <= MAX_BOUNDARIES
        ):
            raise wrong(
                f"{self.op}.boundaries", self.boundaries, f"a list of 1 to {MAX_BOUNDARIES} numbers"
            )
        numbers = tuple(number(f"{self.op}.boundaries", value) for value in self.boundaries)
        for lower, upper in pairwise(numbers):
            if not lower < upper:
                raise InvalidTransform(
                    f"bucketize.boundaries has {upper!r} after {lower!r}; make them strictly rising"
                )
        object.__setattr__(self, "boundaries", numbers)
        if self.side not in ("left", "right"):
            raise wrong(f"{self.op}.side", self.side, "left or right")
        check_id(f"{self.op}.missing", self.missing)

    def gives(self, _: Kind) -> Kind:
        """Integers."""
        return Kind.INT

    def apply(self, column: Column, _: Assets) -> Column:
        """Bucket of each number."""
        numbers = column.as_float().values
        side: Any = self.side
        ids = np.searchsorted(np.array(self.boundaries), numbers, side=side).astype(np.int64)
        return _ids_column(ids, column.missing, self.missing)


@dataclass(frozen=True, slots=True)
class Normalize:
    """``(x - mean) / stdev``; what overflows becomes infinite.

    Attributes:
        mean: Finite.
        stdev: Finite, positive.
        missing: Number that a missing value becomes, as the result; None: it stays missing.
    """

    op: ClassVar[str] = "normalize"
    takes: ClassVar[frozenset[Kind]] = _NUMBERS

    mean: float
    stdev: float
    missing: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(f"{self.op}.mean", self.mean))
        object.__setattr__(self, "stdev", number(f"{self.op}.stdev", self.stdev))
        if not self.stdev > 0:
            raise wrong(f"{self.op}.stdev", self.stdev, "a number above 0")
        object.__setattr__(self, "missing", optional_number(f"{self.op}.missing", self.missing))

    def gives(self, _: Kind) -> Kind:
        """Floats."""
        return Kind.FLOAT

    def apply(self, column: Column, _: Assets) -> Column:
        """Normalised numbers."""
        with np.errstate(over="ignore", under="ignore"):
            values = (column.as_float().values - self.mean) / self.stdev
        return _floats_column(values, column.missing, self.missing)


@dataclass(frozen=True, slots=True)
class Clip:
    """``min`` for what is below it, ``max`` for what is above it; all else, -0.0 too, stays.

    Attributes:
        min: Finite, or None for no lower bound; one of both bounds is needed.
        max: Finite and not below ``min``, or None for no upper bound.
        missing: Number that a missing value becomes, as the result; None: it stays missing.
    """

    op: ClassVar[str] = "clip"
    takes: ClassVar[frozenset[Kind]] = _NUMBERS

    min: float | None = None
    max: float | None = None
    missing: float | None = None

    def __post_init__(self) -> None:
        for name in ("min", "max", "missing"):
            object.__setattr__(
                self, name, optional_number(f"{self.op}.{name}", getattr(self, name))
            )
        if self.min is None and self.max is None:
            raise InvalidTransform("clip needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InvalidTransform(
                f"clip.min is {self.min!r}, above clip.max {self.max!r}; exchange them"
            )

    def gives(self, _: Kind) -> Kind:
        """Floats."""
        return Kind.FLOAT

    def apply(self, column: Column, _: Assets) -> Column:
        """Bounded numbers."""
        values = column.as_float().values
        if self.min is not None:
            values = np.where(values < self.min, self.min, values)
        if self.max is not None:
            values = np.where(values > self.max, self.max, values)
        return _floats_column(values, column.missing, self.missing)


@dataclass(frozen=True, slots=True)
class EmbedLookup:
    """Row of an embedding table: one value becomes ``dimensions`` values, float32 widened.

    Attributes:
        asset: Name of the table.
        out_of_range: What an index becomes that is below 0, past the last row, or missing:
            ``zeros``, the ``row`` named, or ``missing``.
        row: Which row, for ``out_of_range`` ``row`` and for nothing else.
    """

    op: ClassVar[str] = "embed_lookup"
    takes: ClassVar[frozenset[Kind]] = frozenset({Kind.INT})

    asset: str
    out_of_range: str = "zeros"
    row: int | None = None

    def __post_init__(self) -> None:
        check_text(f"{self.op}.asset", self.asset)
        if self.out_of_range not in ("zeros", "row", "missing"):
            raise wrong(f"{self.op}.out_of_range", self.out_of_range, "zeros, row or missing")
        if (self.out_of_range == "row") != (self.row is not None):
            raise InvalidTransform(
                "embed_lookup.row goes with out_of_range: row, and only with it; "
                "give both or neither"
            )
        if self.row is not None:
            check_integer(f"{self.op}.row", self.row, 0, MAX_BUCKETS)

    def gives(self, _: Kind) -> Kind:
        """Floats."""
        return Kind.FLOAT

    def apply(self, column: Column, assets: Assets) -> Column:
        """Rows, shape ``(*shape of the column, dimensions)``."""
        table = _asset(assets, self.asset, EmbeddingTable).table
        if self.row is not None and self.row >= len(table):
            raise InvalidAsset(
                f"embed_lookup.row is {self.row}, the table {self.asset} has {len(table)} rows"
            )
        index = column.values
        outside = column.missing | (index < 0) | (index >= len(table))
        values = table[np.where(outside, self.row or 0, index)].astype(np.float64)
        if self.out_of_range != "row":
            values[outside] = 0.0
        is_missing = outside if self.out_of_range == "missing" else np.zeros_like(outside)
        missing = np.broadcast_to(is_missing[..., None], values.shape).copy()
        return Column(Kind.FLOAT, values, missing)


Transform = Identity | Hash | Vocab | Bucketize | Normalize | Clip | EmbedLookup
OPS: Mapping[str, type[Transform]] = {
    transform.op: transform
    for transform in (Identity, Hash, Vocab, Bucketize, Normalize, Clip, EmbedLookup)
}


def asset_of(transform: Transform) -> str | None:
    """Name of the asset a transform reads; None for most."""
    return transform.asset if isinstance(transform, Vocab | EmbedLookup) else None


def _tokens(column: Column) -> list[str]:
    flat = column.values.ravel().tolist()
    if column.kind is Kind.STRING:
        return flat
    if column.kind is Kind.INT:
        return list(map(str, flat))
    raise UnsuitableColumn(
        "floats are no tokens, since their digits differ between languages; bucketize them first"
    )


def _hash_buckets(tokens: list[str], buckets: int, seed: int) -> NDArray[np.int64]:
    hashes = np.fromiter(map(mmh3.hash, tokens, repeat(seed)), np.int32, len(tokens))
    return hashes.view(np.uint32).astype(np.int64) % buckets


def _ids_column(ids: NDArray[np.int64], missing: NDArray[np.bool_], fill: int | None) -> Column:
    ids[missing] = 0 if fill is None else fill
    return Column(Kind.INT, ids, missing if fill is None else np.zeros_like(missing))


def _floats_column(
    values: NDArray[np.float64], missing: NDArray[np.bool_], fill: float | None
) -> Column:
    values[missing] = 0.0 if fill is None else fill
    return Column(Kind.FLOAT, values, missing if fill is None else np.zeros_like(missing))


_Asset = TypeVar("_Asset", Vocabulary, EmbeddingTable)


def _asset(assets: Assets, name: str, kind: type[_Asset]) -> _Asset:
    found: Asset | None = assets.get(name)
    if isinstance(found, kind):
        return found
    what = "is not on this device" if found is None else f"is no {kind.__name__}"
    raise InvalidAsset(f"the asset {name} {what}; fetch what the feature's manifest names")
