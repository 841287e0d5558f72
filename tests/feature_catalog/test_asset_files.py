"""Files of assets: known by their digest, checked, and added all or none."""

import hashlib

import numpy as np
import pytest

from device_runtime.transform_assets import EmbeddingTable, Vocabulary
from feature_catalog.asset_files import (
    UnfitAssetFile,
    UnnamedAssetFile,
    add_asset_files,
    missing_assets,
)
from feature_catalog.definitions import Asset
from feature_catalog.definitions.catalog_set import DefinitionSet, key_of
from feature_catalog.feature_registry import FeatureRegistry
from tests.feature_catalog.definitions.examples import parsed

pytestmark = pytest.mark.integration

WORDS = Vocabulary.of(("a", "b", "c")).to_bytes()
TABLE = EmbeddingTable.of(np.ones((3, 2), np.float32)).to_bytes()


def asset(name: str, content: bytes, **changed) -> Asset:
    said = {
        "type": "vocabulary",
        "version": 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    return Asset(name, **(said | changed))


def applied(engine, *assets: Asset) -> None:
    FeatureRegistry(engine).apply(DefinitionSet({key_of(each): each for each in assets}))


def file(tmp_path, content: bytes, name: str = "file"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_file_that_a_definition_names_is_stored_and_again_is_no_news(engine, blobs, tmp_path):
    applied(
        engine,
        asset("words", WORDS, entries=3),
        asset("rows", TABLE, type="embedding", entries=3, dimension=2),
    )
    paths = [file(tmp_path, WORDS, "words.txt"), file(tmp_path, TABLE, "rows.npy")]
    first = add_asset_files(engine, blobs, paths)
    assert [(each.names, each.was_there) for each in first] == [
        (("words",), False),
        (("rows",), False),
    ]
    assert [blobs.get(each.sha256) for each in first] == [WORDS, TABLE]
    assert all(each.was_there for each in add_asset_files(engine, blobs, paths))


def test_a_file_of_a_former_version_is_taken_too(engine, blobs, tmp_path):
    applied(engine, asset("words", WORDS))
    applied(engine, asset("words", b"x\ny\n", version=2))
    [added] = add_asset_files(engine, blobs, [file(tmp_path, WORDS)])
    assert added.names == ("words",)


@pytest.mark.parametrize(
    ("content", "said", "error", "why"),
    [
        (b"unnamed\n", None, UnnamedAssetFile, "no asset's definition names"),
        (WORDS, {"size_bytes": 7}, UnfitAssetFile, "has 6 bytes, and the definition .* says 7"),
        (WORDS, {"entries": 4}, UnfitAssetFile, "it has 3 tokens, and its definition says 4"),
        (b"a\nb", {}, UnfitAssetFile, "last line has no end"),
        (b"a\na\n", {}, UnfitAssetFile, "names a token twice"),
        (b"\xff\n", {}, UnfitAssetFile, "not UTF-8"),
        (WORDS, {"type": "embedding", "dimension": 2}, UnfitAssetFile, "not a .npy file"),
        (TABLE, {"type": "embedding", "dimension": 3}, UnfitAssetFile, "2 numbers in a row"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_leaves_nothing_behind(
    engine, blobs, tmp_path, content, said, error, why
):
    good = b"good\n"
    named = [] if said is None else [asset("it", content, **said)]
    applied(engine, asset("good", good), *named)
    with pytest.raises(error, match=why):
        add_asset_files(engine, blobs, [file(tmp_path, good, "good"), file(tmp_path, content)])
    assert list(blobs.digests()) == []


def test_a_file_that_cannot_be_read_is_refused(engine, blobs, tmp_path):
    with pytest.raises(UnfitAssetFile, match="cannot be read"):
        add_asset_files(engine, blobs, [tmp_path / "none"])
    with pytest.raises(UnfitAssetFile, match="cannot be read"):
        add_asset_files(engine, blobs, [tmp_path])


def test_missing_files_are_those_that_the_services_transforms_read(blobs):
    given = parsed()
    assert [each.name for each in missing_assets(given, blobs, ["ads_ctr_v1"])] == ["ad_categories"]
    assert missing_assets(given, blobs, ["no_such_service"]) == ()
