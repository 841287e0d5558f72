"""What a contract's cloud views send: one column for each field and cloud chain."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from device_runtime.columns import Column, Kind
from device_runtime.feature_manifest import column_name
from device_runtime.feature_values import Value
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.on_device.served_views import chain_at
from feature_catalog.service.served_contracts import ServedContract


@dataclass(frozen=True, slots=True)
class SentColumn:
    """One value of a row that is sent.

    Attributes:
        name: See `device_runtime.feature_manifest`.
        chain: What the field's value goes through before it is sent.
        kind: Of what is sent.
        shape: Of one value that is sent.
    """

    name: str
    field: Field
    chain: TransformChain
    kind: Kind
    shape: tuple[int, ...]

    def default(self, assets: Assets) -> Value:
        """The field's default as rows have it; None where it has none.

        Raises:
            InvalidAsset: If an asset of the chain is not there.
        """
        value = self.field.default
        if value is None:
            return None
        if self.field.dtype is Dtype.FLOAT32 and not isinstance(value, str):
            value = float(np.float32(value))  # as a source of float32 would hold it
        whole = np.full((1, *self.field.shape), value, object)
        column = Column.of(whole, kind=self.field.dtype.column_kind)
        found: Value = self.chain.apply(column, assets).to_list()[0]
        return None if _holds_missing(found) else found


def sent_columns(contract: ServedContract, view: str) -> tuple[SentColumn, ...]:
    """The columns of a cloud view's rows, by name, each once."""
    found = {}
    for served in contract.features:
        if served.view.name == view:
            column = sent_column(contract.definitions, served)
            found[column.name] = column
    return tuple(found[name] for name in sorted(found))


def sent_column(definitions: DefinitionSet, served: ServedFeature) -> SentColumn:
    """The column that a feature of a cloud view is read from."""
    field = field_of(served)
    chain = chain_at(served, RunAt.CLOUD)
    kind, shape = chain.gives(field.dtype.column_kind), field.shape
    for name in chain.asset_names:
        asset = definitions.asset(name)
        if asset is not None and asset.dimension is not None:
            shape = (*shape, asset.dimension)
    digests = asset_digests(definitions, {name: name for name in chain.asset_names})
    return SentColumn(column_name(field.name, chain, digests), field, chain, kind, shape)


def asset_digests(definitions: DefinitionSet, taken: Mapping[str, str]) -> dict[str, bytes]:
    """SHA-256 of the file behind each name in a chain.

    Args:
        taken: Asset taken, by the name in the chain.
    """
    found = ((name, definitions.asset(uses)) for name, uses in taken.items())
    return {name: bytes.fromhex(asset.sha256) for name, asset in found if asset is not None}


def field_of(served: ServedFeature) -> Field:
    """The view's field that a feature is."""
    field = served.view.field(served.feature.field)
    if field is None:
        raise LookupError(f"{served.feature.ref} was not looked for before")
    return field


def _holds_missing(value: Value) -> bool:
    if isinstance(value, list):
        return any(_holds_missing(each) for each in value)
    return value is None
