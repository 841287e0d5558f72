"""Rows of cloud views as devices get them: read by key, put through the cloud's transforms."""

import datetime as dt
from collections.abc import Sequence

from device_runtime.bounded_cbor import UnfitCbor, decode_cbor
from device_runtime.feature_values import MAX_KEY_BYTES, Value, encode_key, encode_row
from device_runtime.protocol import features_pb2 as pb
from device_runtime.transform_assets import Assets
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.fields import Dtype
from feature_catalog.definitions.views import FeatureView
from feature_catalog.online import OnlineStore, ValueStatus
from feature_catalog.service.columns import sent_columns
from feature_catalog.service.errors import InvalidFeatureRequest
from feature_catalog.service.served_contracts import ServedContract

MAX_KEYS = 256

_STATUSES = {
    ValueStatus.PRESENT: pb.FeatureRow.PRESENT,
    ValueStatus.NOT_FOUND: pb.FeatureRow.NOT_FOUND,
    ValueStatus.OUTSIDE_MAX_AGE: pb.FeatureRow.OUTSIDE_MAX_AGE,
}


def check_keys(definitions: DefinitionSet, view: FeatureView, keys: Sequence[bytes]) -> None:
    """Refuse keys that cannot be any of the view's.

    Raises:
        InvalidFeatureRequest: If there are none or too many, or one is not of its join keys.
    """
    if not 1 <= len(keys) <= MAX_KEYS:
        raise InvalidFeatureRequest(
            f"{len(keys)} keys are asked for; ask for 1 to {MAX_KEYS} at once"
        )
    entities = [definitions.entity(name) for name in view.entities]
    dtypes = [each.dtype for each in entities if each is not None for _ in each.join_keys]
    for number, key in enumerate(keys):
        if not _is_key(key, dtypes):
            raise InvalidFeatureRequest(
                f"key {number + 1} is none of view {view.name}; give its {len(dtypes)} join key "
                "values, CBOR-encoded, in the manifest's order"
            )


def feature_rows(
    contract: ServedContract,
    view: str,
    keys: Sequence[bytes],
    store: OnlineStore,
    assets: Assets,
    *,
    now_s: float,
) -> list[pb.FeatureRow]:
    """A row for each key, in order.

    A key without a row has the values that the cloud's transforms give for missing ones, as
    training data have: nothing at all, unless one says what ``missing`` becomes.

    Args:
        keys: Checked.
        assets: That the cloud's chains read.
        now_s: Seconds since the epoch.

    Raises:
        FlintError: If the database does not answer, or a value does not fit its transforms.
    """
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    found = store.read(contract.online_view(view), keys, at=now)
    columns = {
        sent.name: sent.chain.apply(found.column(sent.field.name), assets).to_list()
        for sent in sent_columns(contract, view)
    }
    rows = []
    for number, (status, event_us) in enumerate(zip(found.statuses, found.event_us, strict=True)):
        values: dict[str, Value] = {
            name: values[number]
            for name, values in columns.items()
            if not _is_missing(values[number])
        }
        # What is not true any more has no age: as missing it is news of this moment.
        age_s = 0.0
        if status is ValueStatus.PRESENT and event_us is not None:
            age_s = max(0.0, now_s - event_us / 1e6)
        rows.append(
            pb.FeatureRow(
                status=_STATUSES[status],
                age_s=age_s,
                values=encode_row(values) if values else b"",
            )
        )
    return rows


def _is_key(key: bytes, dtypes: Sequence[Dtype]) -> bool:
    if len(key) > MAX_KEY_BYTES:
        return False
    try:
        values = decode_cbor(key, most_items=len(dtypes) + 1, most_depth=1)
    except UnfitCbor:
        return False
    if not isinstance(values, list) or len(values) != len(dtypes):
        return False
    fits = (_fits(value, dtype) for value, dtype in zip(values, dtypes, strict=True))
    return all(fits) and encode_key(values) == key


def _fits(value: object, dtype: Dtype) -> bool:
    if dtype is Dtype.STRING:
        return isinstance(value, str)
    bits = 31 if dtype is Dtype.INT32 else 63
    return type(value) is int and -(2**bits) <= value < 2**bits


def _is_missing(value: Value) -> bool:
    if isinstance(value, list):
        return all(_is_missing(each) for each in value)
    return value is None
