"""The definitions that a built vocabulary goes into: its asset, and a transform that reads it."""

from typing import Any

from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.plain import to_plain
from feature_catalog.definitions.transforms import RunAt, Transform
from feature_catalog.strict_yaml import dump_mapping
from feature_catalog.vocabularies.selection import BuiltVocabulary


def asset_of(
    built: BuiltVocabulary,
    name: str,
    *,
    version: int = 1,
    locale: str = "",
    owner: str = "",
    fallback: str | None = None,
) -> Asset:
    """The asset a vocabulary's file is.

    Raises:
        DefinitionError: If a name, version or locale is impossible.
    """
    vocabulary = built.vocabulary
    return Asset(
        name=name,
        type=AssetType.VOCABULARY,
        version=version,
        sha256=vocabulary.sha256.hex(),
        size_bytes=len(vocabulary.to_bytes()),
        entries=len(vocabulary.tokens),
        locale=locale,
        owner=owner,
        fallback=fallback,
    )


def transform_of(
    asset: Asset, *, unknown: int | None = None, hash_buckets: int | None = None
) -> Transform:
    """The transform that reads it; without a word on unknown tokens, they become the next id.

    Raises:
        DefinitionError: If it is told both, or an impossible number.
    """
    parameters: dict[str, object] = {"asset": asset.name}
    if hash_buckets is not None:
        parameters["hash_buckets"] = hash_buckets
    if unknown is not None or hash_buckets is None:
        parameters["unknown"] = asset.entries if unknown is None else unknown
    return Transform("vocab", RunAt.DEVICE_INGEST, parameters)


def as_yaml(asset: Asset) -> str:
    """The asset as a file of definitions holds it."""
    return dump_mapping({"assets": [to_plain(asset)]})


def transform_as_yaml(transform: Transform) -> str:
    """The transform as it stands in a feature of a service."""
    plain: dict[str, Any] = to_plain(transform)
    return dump_mapping({"transforms": [plain]})
