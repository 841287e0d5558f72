"""Reads a feature manifest. It comes from a server, but is taken as if anybody had written it."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from device_runtime.columns import Kind
from device_runtime.errors import FlintError
from device_runtime.feature_manifest import (
    FORMAT,
    MAX_ASSETS,
    MAX_FEATURES,
    MAX_MANIFEST_BYTES,
    MAX_REASON_CHARACTERS,
    MAX_REFUSALS,
    MAX_VIEWS,
    EventField,
    FeatureManifest,
    InvalidFeatureManifest,
    JoinKey,
    ManifestAsset,
    ManifestFeature,
    ManifestView,
    Place,
    Refusal,
)
from device_runtime.feature_policies import CachePolicy, Network, Retention
from device_runtime.transform_assets import MAX_ASSET_BYTES
from device_runtime.transform_chain import MAX_JSON_BYTES, TransformChain

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[0-9a-f]{16})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_TYPES = ("string", "int32", "int64")
_ASSET_TYPES = ("vocabulary", "embedding")
_REFUSAL_KINDS = ("asset", "view", "feature")
_MAX_KEYS = 64
_MAX_EVENT_FIELDS = 500
_MAX_AUDIENCE = 100
_MAX_DIMENSIONS = 5
_MAX_ELEMENTS = 65_536
_LONGEST_TEXT = MAX_REASON_CHARACTERS
_MOST_SECONDS = 1e11
_MOST_NUMBER = sys.float_info.max

_Item = TypeVar("_Item")
_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_manifest(content: bytes) -> FeatureManifest:
    """Read what a gateway sent, or what was kept of it.

    Raises:
        InvalidFeatureManifest: If it is no manifest this runtime can go by.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise InvalidFeatureManifest(
            f"the feature manifest has {len(content)} bytes, more than the {MAX_MANIFEST_BYTES} a "
            "device reads; split the feature service"
        )
    try:
        raw = json.loads(content, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidFeatureManifest(
            f"the feature manifest is not JSON ({str(error)[:80]}); fetch it again"
        ) from None
    top = _Block(raw, "")
    if top.take("format") != FORMAT:
        raise InvalidFeatureManifest(
            f"the feature manifest is of a form this runtime does not know, and it reads form "
            f"{FORMAT}; update the app"
        )
    features = top.each("features", MAX_FEATURES, _feature)
    views = top.each("views", MAX_VIEWS, _view)
    assets = top.each("assets", MAX_ASSETS, _asset)
    manifest = FeatureManifest(
        service=top.text("service", _NAME),
        contract_sha256=top.digest("contract_sha256"),
        features=features,
        views={view.name: view for view in views},
        assets={asset.name: asset for asset in assets},
        refusals=top.each("refusals", MAX_REFUSALS, _refusal),
    )
    top.end()
    _distinct("features", [feature.name for feature in features])
    _distinct("views", [view.name for view in views])
    _distinct("assets", [asset.name for asset in assets])
    _check_together(manifest)
    return manifest


class _Block:
    """A JSON object of which every key must be taken."""

    def __init__(self, raw: object, path: str) -> None:
        if not isinstance(raw, dict):
            _wrong(path or "the manifest", raw, "a block of keys")
        self._left: dict[str, Any] = dict(raw)
        self._path = path

    def take(self, key: str) -> Any:  # noqa: ANN401
        if key not in self._left:
            raise InvalidFeatureManifest(f"the feature manifest lacks {self.at(key)}")
        return self._left.pop(key)

    def at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def end(self) -> None:
        if self._left:
            raise InvalidFeatureManifest(
                f"the feature manifest holds {self.at(min(self._left))[:100]!a}, which this "
                "runtime does not know; update the app"
            )

    def text(self, key: str, form: re.Pattern[str] | None = None, *, empty: bool = False) -> str:
        value = self.take(key)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            _wrong(self.at(key), value, "a short text")
        if form is not None and not (empty and not value) and form.fullmatch(value) is None:
            _wrong(self.at(key), value, "a plain name")
        return value

    def digest(self, key: str) -> bytes:
        return bytes.fromhex(self.text(key, _SHA256))

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.take(key)
        if type(value) is not int or not least <= value <= most:
            _wrong(self.at(key), value, f"a whole number from {least} to {most}")
        return value

    def seconds(self, key: str) -> float | None:
        value = self.take(key)
        if value is None:
            return None
        if type(value) not in {int, float} or not 0 < value < _MOST_SECONDS:
            _wrong(self.at(key), value, "seconds above 0, or null")
        return float(value)

    def choice(self, key: str, choices: type[_Choice]) -> _Choice:
        value = self.take(key)
        if not isinstance(value, str) or value not in list(choices):
            _wrong(self.at(key), value, f"one of {', '.join(choices)}")
        return choices(value)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.take(key)
        if not isinstance(value, str) or value not in choices:
            _wrong(self.at(key), value, f"one of {', '.join(choices)}")
        return value

    def items(self, key: str, most: int) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list) or len(value) > most:
            _wrong(self.at(key), value, f"a list of at most {most}")
        return value

    def each(self, key: str, most: int, read: Callable[["_Block"], _Item]) -> tuple[_Item, ...]:
        found = []
        for index, raw in enumerate(self.items(key, most)):
            block = _Block(raw, f"{self.at(key)}[{index}]")
            found.append(read(block))
            block.end()
        return tuple(found)

    def texts(self, key: str, most: int, form: re.Pattern[str] | None) -> tuple[str, ...]:
        values = self.items(key, most)
        for value in values:
            is_text = isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT
            if not is_text or (form is not None and form.fullmatch(value) is None):
                _wrong(self.at(key), value, "a list of plain names")
        return tuple(values)

    def shape(self, key: str) -> tuple[int, ...]:
        sizes = self.items(key, _MAX_DIMENSIONS)
        if any(type(size) is not int or not 0 < size <= _MAX_ELEMENTS for size in sizes):
            _wrong(self.at(key), sizes, "a list of positive whole numbers")
        if math.prod(sizes) > _MAX_ELEMENTS:
            _wrong(self.at(key), sizes, f"a shape of at most {_MAX_ELEMENTS} elements")
        return tuple(sizes)

    def chain(self, key: str) -> TransformChain:
        value = self.take(key)
        if not isinstance(value, str) or len(value) > MAX_JSON_BYTES:
            _wrong(self.at(key), value, "a chain of transforms")
        with _placed(self.at(key)):
            return TransformChain.from_json(value)

    def policy(
        self, key: str, policy: type[Retention] | type[CachePolicy]
    ) -> Retention | CachePolicy | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            _wrong(self.at(key), value, "a block of keys, or null")
        with _placed(self.at(key)):
            return policy.from_json(value)


def _feature(block: _Block) -> ManifestFeature:
    kind, shape = block.choice("kind", Kind), block.shape("shape")
    default = block.take("default")
    if default is not None:
        _check_default(block.at("default"), default, kind, shape)
    feature = ManifestFeature(
        name=block.text("name", _FIELD),
        view=block.text("view", _NAME),
        field=block.text("field", _FIELD),
        column=block.text("column", _COLUMN),
        kind=kind,
        shape=shape,
        default=default,
        ingest=block.chain("device_ingest"),
        read=block.chain("device_read"),
        gives=block.choice("gives", Kind),
        gives_shape=block.shape("gives_shape"),
    )
    with _placed(block.at("device_read")):
        found = feature.read.gives(feature.ingest.gives(kind))
    if found is not feature.gives:
        _wrong(block.at("gives"), str(feature.gives), f"{found}, which its transforms give")
    if feature.column.partition(".")[0] != feature.field:
        _wrong(block.at("column"), feature.column, f"a column of {feature.field}")
    return feature


def _view(block: _Block) -> ManifestView:
    view = ManifestView(
        name=block.text("name", _NAME),
        version=block.whole("version", 1, 2**31 - 1),
        place=block.choice("place", Place),
        join_keys=block.each("join_keys", _MAX_KEYS, _join_key),
        ttl_s=block.seconds("ttl_s"),
        audience=frozenset(block.texts("audience", _MAX_AUDIENCE, None)),
        event=block.text("event", _NAME, empty=True),
        event_fields=block.each("event_fields", _MAX_EVENT_FIELDS, _event_field),
        retention=_as(Retention, block.policy("retention", Retention)),
        cache=_as(CachePolicy, block.policy("cache", CachePolicy)),
    )
    _distinct(block.at("join_keys"), [key.name for key in view.join_keys])
    _distinct(block.at("event_fields"), [field.name for field in view.event_fields])
    is_whole = bool(view.event and view.event_fields and view.retention)
    if view.place is Place.DEVICE and not (is_whole and view.cache is None):
        _wrong(block.at("place"), "device", "cloud, or have an event and its retention")
    is_bare = not (view.event or view.event_fields or view.retention)
    if view.place is Place.CLOUD and not (is_bare and view.cache is not None and view.join_keys):
        _wrong(block.at("place"), "cloud", "device, or have join keys and a cache policy")
    return view


def _join_key(block: _Block) -> JoinKey:
    return JoinKey(block.text("name", _FIELD), block.one_of("dtype", _KEY_TYPES))


def _event_field(block: _Block) -> EventField:
    return EventField(block.text("name", _FIELD), block.choice("kind", Kind), block.shape("shape"))


def _asset(block: _Block) -> ManifestAsset:
    return ManifestAsset(
        name=block.text("name", _NAME),
        uses=block.text("uses", _NAME),
        type=block.one_of("type", _ASSET_TYPES),
        sha256=block.digest("sha256"),
        size_bytes=block.whole("size_bytes", 1, MAX_ASSET_BYTES),
        network=block.choice("network", Network),
    )


def _refusal(block: _Block) -> Refusal:
    return Refusal(
        kind=block.one_of("kind", _REFUSAL_KINDS),
        name=block.text("name", _FIELD),
        reason=block.text("reason"),
        features=block.texts("features", MAX_FEATURES, _FIELD),
    )


def _check_together(manifest: FeatureManifest) -> None:
    """What the parts say of each other: every view and asset that a feature needs is there."""
    if not manifest.features:
        raise InvalidFeatureManifest("the feature manifest has no feature; fetch it again")
    refused = manifest.refused_features
    for feature in manifest.features:
        view = manifest.views.get(feature.view)
        if view is None:
            raise InvalidFeatureManifest(
                f"feature {feature.name} is of view {feature.view}, which the feature manifest "
                "lacks; fetch it again"
            )
        if view.place is Place.CLOUD and feature.ingest.steps:
            raise InvalidFeatureManifest(
                f"feature {feature.name} of the cloud's view {view.name} has a chain for events"
            )
        if view.place is Place.DEVICE:
            fields = {each.name: each for each in view.event_fields}
            event_field = fields.get(feature.field)
            if event_field is None or event_field.kind is not feature.kind:
                raise InvalidFeatureManifest(
                    f"feature {feature.name} is of {feature.field}, which an event {view.event} "
                    f"does not hold as {feature.kind}"
                )
        for name in (*feature.ingest.asset_names, *feature.read.asset_names):
            if name not in manifest.assets and feature.name not in refused:
                raise InvalidFeatureManifest(
                    f"feature {feature.name} needs asset {name[:60]}, which the feature manifest "
                    "neither names nor refuses; fetch it again"
                )
    _check_columns(manifest)


def _check_columns(manifest: FeatureManifest) -> None:
    """A column of a view is one value, whoever names it."""
    seen: dict[tuple[str, str], tuple[object, ...]] = {}
    for feature in manifest.features:
        if feature.name in manifest.refused_features:
            continue
        is_event = manifest.views[feature.view].place is Place.DEVICE
        ingest = feature.ingest.to_json() if is_event else ""
        content = (feature.kind, feature.shape, ingest)
        if seen.setdefault((feature.view, feature.column), content) != content:
            raise InvalidFeatureManifest(
                f"the column {feature.column} of {feature.view} is two different values in the "
                "feature manifest; fetch it again"
            )


def _check_default(where: str, value: Any, kind: Kind, shape: tuple[int, ...]) -> None:  # noqa: ANN401
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            _wrong(where, value, f"of shape {list(shape)}")
        for element in value:
            _check_default(where, element, kind, shape[1:])
        return
    fits = {
        Kind.STRING: isinstance(value, str),
        Kind.INT: type(value) is int and -(2**63) <= value < 2**63,
        Kind.FLOAT: type(value) in {int, float} and -_MOST_NUMBER <= value <= _MOST_NUMBER,
    }
    if not fits[kind]:
        _wrong(where, value, f"a value of kind {kind}")


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say of a chain's or a policy's mistake where in the manifest it is."""
    try:
        yield
    except InvalidFeatureManifest:
        raise
    except FlintError as error:
        # It may quote a key of the manifest's.
        why = "".join(each if each.isprintable() else "?" for each in error.sentence)
        raise InvalidFeatureManifest(
            f"the feature manifest's {where} does not hold: {why[:_LONGEST_TEXT]}"
        ) from error


def _as(cls: type[_Item], value: object) -> _Item | None:
    return value if isinstance(value, cls) else None


def _distinct(where: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidFeatureManifest(f"the feature manifest's {where} name {name[:60]} twice")
        seen.add(name)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one block")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _wrong(where: str, value: object, wanted: str) -> NoReturn:
    raise InvalidFeatureManifest(
        f"the feature manifest says {where[:100]} = {str(value)[:60]!a}, and it must be {wanted}"
    )
