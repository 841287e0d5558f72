"""Files of vocabularies and embeddings in the blob store, where devices and the cloud find them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from device_runtime.errors import FlintError
from device_runtime.transform_assets import (
    MAX_ASSET_BYTES,
    EmbeddingTable,
    InvalidAsset,
    Vocabulary,
)
from device_runtime.transform_assets import Asset as AssetFile
from feature_catalog.blobs import BlobStore
from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.plain import from_plain
from feature_catalog.definitions.served import served_features
from feature_catalog.schema import FeatureDefinitionRecord


class UnnamedAssetFile(FlintError):
    """A file that no asset's definition names by its digest."""

    code = "FLN-2951"


class UnfitAssetFile(FlintError):
    """A file that is not what its asset's definition says, or cannot be read."""

    code = "FLN-2952"


@dataclass(frozen=True, slots=True)
class AddedAsset:
    """What became of one file.

    Attributes:
        names: Assets whose file it is.
        was_there: Whether the blob store had it.
    """

    path: Path
    names: tuple[str, ...]
    sha256: bytes
    size_bytes: int
    was_there: bool


def read_asset(asset: Asset, content: bytes) -> AssetFile:
    """Parse an asset's file.

    Raises:
        InvalidAsset: If it is not what the definition says.
    """
    if asset.type is AssetType.VOCABULARY:
        vocabulary = Vocabulary.from_bytes(content)
        _check_number("tokens", len(vocabulary.tokens), asset.entries)
        return vocabulary
    table = EmbeddingTable.from_bytes(content)
    _check_number("rows", table.table.shape[0], asset.entries)
    _check_number("numbers in a row", table.table.shape[1], asset.dimension)
    return table


def add_asset_files(
    engine: Engine, blobs: BlobStore, paths: Sequence[Path]
) -> tuple[AddedAsset, ...]:
    """Put files of assets into the blob store; all of them, or on any mistake none.

    A file is known by its digest: it may be that of an asset as it is defined now, or once was,
    for models in the field may still go by that.

    Raises:
        UnnamedAssetFile: If no definition names a file.
        UnfitAssetFile: If one cannot be read, or is not what its definition says.
        BlobStoreUnreachable: If the blob store cannot be written.
    """
    by_digest = _defined_assets(engine)
    checked = [(path, *_checked(path, by_digest)) for path in paths]
    added = []
    for path, digest, size_bytes, names in checked:
        was_there = blobs.exists(digest)
        stored = digest if was_there else blobs.put_file(path)
        if stored != digest:
            raise UnfitAssetFile(f"{path} changed while it was read; give it again")
        added.append(AddedAsset(path, names, digest, size_bytes, was_there))
    return tuple(added)


def missing_assets(
    definitions: DefinitionSet, blobs: BlobStore, services: Iterable[str]
) -> tuple[Asset, ...]:
    """Assets that services' transforms name, and whose files are not in the blob store, by name."""
    names: set[str] = set()
    for service_name in services:
        service = definitions.service(service_name)
        if service is not None:
            for each in served_features(definitions, service):
                names.update(step.asset for step in each.feature.transforms if step.asset)
    found = (definitions.asset(name) for name in sorted(names))
    return tuple(
        asset
        for asset in found
        if asset is not None and not blobs.exists(bytes.fromhex(asset.sha256))
    )


def said_missing(asset: Asset) -> str:
    """A warning of an asset whose file devices could not fetch."""
    return (
        f"warning: the file of asset {asset.name} is not in the blob store, so devices do without "
        "it; add it with `flint catalog asset add FILE`"
    )


def _checked(path: Path, by_digest: dict[bytes, list[Asset]]) -> tuple[bytes, int, tuple[str, ...]]:
    """Digest, bytes and the names of the assets whose file it is."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_ASSET_BYTES:
            raise UnfitAssetFile(
                f"{path} has {size_bytes} bytes, more than the {MAX_ASSET_BYTES} a device reads; "
                "build a smaller one"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UnfitAssetFile(f"{path} cannot be read ({error.strerror}); give a file") from error
    digest = hashlib.sha256(content).digest()
    assets = by_digest.get(digest, [])
    if not assets:
        raise UnnamedAssetFile(
            f"no asset's definition names {path} by its SHA-256, {digest.hex()}; `flint catalog "
            "apply` one that does, with this sha256 and size_bytes"
        )
    for asset in assets:
        if asset.size_bytes != len(content):
            raise UnfitAssetFile(
                f"{path} has {len(content)} bytes, and the definition of {asset.name} says "
                f"{asset.size_bytes}; correct its size_bytes and apply it"
            )
        try:
            read_asset(asset, content)
        except InvalidAsset as error:
            raise UnfitAssetFile(
                f"{path} is not the {asset.type} that the definition of {asset.name} says: "
                f"{error.sentence}"
            ) from error
    return digest, len(content), tuple(sorted({asset.name for asset in assets}))


def _defined_assets(engine: Engine) -> dict[bytes, list[Asset]]:
    """Every asset there is or was, the newest definition of each file first, by the file."""
    record = FeatureDefinitionRecord
    statement = (
        select(record.definition_json)
        .where(record.kind == Asset.kind)
        .order_by(record.version.desc())
    )
    found: dict[bytes, list[Asset]] = {}
    with engine.connect() as connection:
        for definition_json in connection.execute(statement).scalars():
            if definition_json is None:
                continue
            asset = from_plain(Asset.kind, json.loads(definition_json))
            if isinstance(asset, Asset):
                of_file = found.setdefault(bytes.fromhex(asset.sha256), [])
                # A corrected definition counts, not the one before it.
                if all(each.name != asset.name for each in of_file):
                    of_file.append(asset)
    return found


def _check_number(what: str, found: int, said: int | None) -> None:
    if said is not None and found != said:
        raise InvalidAsset(
            f"it has {found} {what}, and its definition says {said}; correct that and apply it"
        )
