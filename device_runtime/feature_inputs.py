"""From a feature service's columns to a model's input: the same code in the cloud and on a device.

Features come transformed, and are taken in order of their names.

=========  =======================================================================================
reads      what a record becomes
=========  =======================================================================================
numbers    float32: every element of every feature, flattened in C order, one after the other
bag        int32: the bucket of each token ``name=value``, each once, padded with -1; features of
           one value first, then those of several (as `feature_catalog.featurize` has them)
fields     int32: the bucket of each feature's token in the feature's own place, else -1
=========  =======================================================================================

A token's value is an integer's decimal digits, or text as it is; a boolean is 0 or 1. Floats have
no digits that are the same in two languages, so they are no tokens: bucketize them first. A missing
value gives no token. Buckets are those of `device_runtime.hashing`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_runtime.columns import Column, Kind
from device_runtime.errors import FlintError
from device_runtime.hashing import PADDING, hash_bucket
from device_runtime.transform_chain import TransformChain
from device_runtime.transforms import EmbedLookup

Reads = Literal["numbers", "bag", "fields"]


class UnsuitableFeatures(FlintError):
    """The features of a service are not what a model reads."""

    code = "FLN-2960"


class UnsuitableFeatureValue(FlintError):
    """A feature's value cannot be part of a model's input."""

    code = "FLN-2961"


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a model reads of a record.

    Attributes:
        places: Entries of one record.
        ids: Rows of the table that ids look up; 0 for a model that reads numbers.
        seed: Of the feature hash.
    """

    reads: Reads
    places: int
    ids: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class InputFeature:
    """One feature as the model gets it.

    Attributes:
        kind: Of its values after all transforms.
        shape: Of one value; ``()`` for a single one.
        may_miss: Whether its value may be missing; see `may_give_missing`.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()
    may_miss: bool = True

    @property
    def size(self) -> int:
        """Elements of one value."""
        return math.prod(self.shape)


def may_give_missing(chain: TransformChain) -> bool:
    """Whether a missing value, or an index out of range, comes out of a chain as missing.

    >>> may_give_missing(TransformChain.from_json('[{"op": "hash", "buckets": 8}]'))
    True
    """
    missing = True
    for step in chain.steps:
        if isinstance(step, EmbedLookup):
            missing = step.out_of_range == "missing"
        elif step.missing is not None:
            missing = False
    return missing


@dataclass(frozen=True, slots=True)
class FeatureInput:
    """How the features of one service become the input of one model.

    Raises:
        UnsuitableFeatures: If the model cannot take them; names the first feature that is why.
    """

    form: InputForm
    features: tuple[InputFeature, ...]

    def __post_init__(self) -> None:
        named = sorted(self.features, key=lambda feature: feature.name)
        object.__setattr__(self, "features", tuple(named))
        if self.form.reads == "numbers":
            self._check_numbers()
        else:
            self._check_ids()

    @property
    def dtype(self) -> type[np.float32] | type[np.int32]:
        """Of the arrays."""
        return np.float32 if self.form.reads == "numbers" else np.int32

    def assemble(self, columns: Mapping[str, Column]) -> NDArray[Any]:
        """The input of records whose features are these columns.

        Args:
            columns: By feature, transformed, a row a record; all of the same length.

        Returns:
            int32 or, for a model that reads numbers, float32; shape ``(records, places)``.

        Raises:
            UnsuitableFeatureValue: If a feature is not there, is of another kind or shape, or is a
                number that is missing or not finite where the model needs one.
        """
        given = [(feature, self._column(columns, feature)) for feature in self.features]
        records = len(given[0][1])
        match self.form.reads:
            case "numbers":
                return self._numbers(given, records)
            case "fields":
                return self._fields(given, records)
            case _:
                return self._bag(given, records)

    # -- which features a model can take ---------------------------------------------------------

    def _check_numbers(self) -> None:
        for feature in self.features:
            if feature.kind is Kind.STRING:
                raise UnsuitableFeatures(
                    f"the feature {feature.name} is text, and the model reads numbers; look it up "
                    "with vocab and embed_lookup, or choose a model that reads tokens"
                )
            if feature.may_miss:
                raise UnsuitableFeatures(
                    f"the feature {feature.name} may be missing, and the model needs a number "
                    "everywhere; give one of its transforms a value for `missing`"
                )
        width = sum(feature.size for feature in self.features)
        if width != self.form.places:
            shares = ", ".join(f"{f.name} {f.size}" for f in self.features)
            raise UnsuitableFeatures(
                f"the features are {width} numbers a record ({_cut(shares)}), and the model reads "
                f"{self.form.places}; change the service's features or choose another model"
            )

    def _check_ids(self) -> None:
        for feature in self.features:
            if feature.kind is Kind.FLOAT:
                raise UnsuitableFeatures(
                    f"the feature {feature.name} is a float, and the model reads tokens; bucketize "
                    "it first"
                )
            if feature.shape and self.form.reads == "fields":
                raise UnsuitableFeatures(
                    f"the feature {feature.name} has {feature.size} values, and the model takes "
                    "one a feature; leave it out or choose a model that reads a bag of tokens"
                )
        if self.form.reads == "fields" and len(self.features) > self.form.places:
            raise UnsuitableFeatures(
                f"the service has {len(self.features)} features, and the model takes at most "
                f"{self.form.places}; leave {self.features[self.form.places].name} out or choose "
                "another model"
            )

    # -- the arrays ------------------------------------------------------------------------------

    def _column(self, columns: Mapping[str, Column], feature: InputFeature) -> Column:
        column = columns.get(feature.name)
        if column is None:
            raise UnsuitableFeatureValue(
                f"the feature {feature.name} is not among the columns; join all of the service's"
            )
        if column.kind is not feature.kind or column.values.shape[1:] != feature.shape:
            raise UnsuitableFeatureValue(
                f"the feature {feature.name} holds {column.kind} values of shape "
                f"{column.values.shape[1:]} where the contract says {feature.kind} of "
                f"{feature.shape}; apply the definitions anew, or correct the source"
            )
        return column

    def _numbers(
        self, given: Sequence[tuple[InputFeature, Column]], records: int
    ) -> NDArray[np.float32]:
        x = np.empty((records, self.form.places), np.float32)
        start = 0
        for feature, column in given:
            if column.missing.any():
                raise UnsuitableFeatureValue(
                    f"the feature {feature.name} has a missing value, and the model needs a "
                    "number everywhere; give one of its transforms a value for `missing`"
                )
            x[:, start : start + feature.size] = column.as_dtype("float32").reshape(records, -1)
            if not np.isfinite(x[:, start : start + feature.size]).all():
                raise UnsuitableFeatureValue(
                    f"the feature {feature.name} has a value that is not finite as float32; clip it"
                )
            start += feature.size
        return x

    def _fields(
        self, given: Sequence[tuple[InputFeature, Column]], records: int
    ) -> NDArray[np.int32]:
        x = np.full((records, self.form.places), PADDING, np.int32)
        for place, (feature, column) in enumerate(given):
            rows, ids = self._tokens(feature, column)
            x[rows, place] = ids
        return x

    def _bag(self, given: Sequence[tuple[InputFeature, Column]], records: int) -> NDArray[np.int32]:
        one_then_several = sorted(given, key=lambda pair: bool(pair[0].shape))
        parts = [self._tokens(feature, column) for feature, column in one_then_several]
        rows = np.concatenate([part[0] for part in parts])
        ids = np.concatenate([part[1] for part in parts])
        # The first of each (row, id), by row and then in the order of tokens.
        order = np.argsort(rows, kind="stable")
        key = (rows * self.form.ids + ids)[order]
        first = np.sort(np.unique(key, return_index=True)[1])
        kept_rows, kept_ids = np.divmod(key[first], self.form.ids)
        counts = np.bincount(kept_rows, minlength=records)
        place = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        fits = place < self.form.places
        x = np.full((records, self.form.places), PADDING, np.int32)
        x[kept_rows[fits], place[fits]] = kept_ids[fits]
        return x

    def _tokens(
        self, feature: InputFeature, column: Column
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and bucket of each token of one feature, each shape ``(tokens,)``."""
        present = np.flatnonzero(~column.missing.ravel())
        rows = present // max(1, feature.size)
        buckets: dict[Any, int] = {}
        ids = np.fromiter(
            self._buckets(feature.name, column.values.ravel()[present].tolist(), buckets),
            np.int64,
            len(present),
        )
        return rows, ids

    def _buckets(self, name: str, values: Sequence[Any], known: dict[Any, int]) -> Iterator[int]:
        for value in values:
            bucket = known.get(value)
            if bucket is None:
                bucket = hash_bucket(f"{name}={value}", self.form.ids, self.form.seed)
                known[value] = bucket
            yield bucket


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
