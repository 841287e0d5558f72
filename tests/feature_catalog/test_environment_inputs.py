"""Inputs of environments: kept byte for byte, numbered, and readable as files again."""

import hashlib
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore, BlobStoreUnreachable, CorruptBlob
from feature_catalog.environment_inputs import (
    EnvironmentInputKindConflict,
    EnvironmentInputs,
    InvalidEnvironmentInputName,
    UnknownEnvironmentInput,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def inputs(engine: Engine, blobs: BlobStore) -> EnvironmentInputs:
    return EnvironmentInputs(engine, blobs)


def file(tmp_path: Path, name: str = "phones.csv", data: str = "device_model,share\na,1\n") -> Path:
    path = tmp_path / name
    path.write_text(data)
    return path


def test_an_input_is_kept_with_what_its_reader_found(
    inputs: EnvironmentInputs, tmp_path: Path
) -> None:
    path = file(tmp_path)
    row = inputs.add(path, "device_population", statistics={"device_models": 1})
    assert (row.name, row.version, row.kind) == ("phones", 1, "device_population")
    assert (row.source, row.suffix) == (str(path), ".csv")
    assert row.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert row.statistics == {"device_models": 1}
    assert row.reference == "phones@1"
    assert inputs.list() == (row,)
    for reference in ("phones", "phones@1", "phones@latest"):
        assert inputs.get(reference) == row


def test_the_same_bytes_are_the_version_there_is_and_others_a_new_one(
    inputs: EnvironmentInputs, tmp_path: Path
) -> None:
    path = file(tmp_path)
    first = inputs.add(path, "device_population", statistics={})
    assert inputs.add(path, "device_population", statistics={"again": 1}) == first
    path.write_text("device_model,share\nb,1\n")
    second = inputs.add(path, "device_population", statistics={})
    assert inputs.get("phones") == inputs.get("phones@latest") == second
    assert inputs.get("phones@1") == first
    assert inputs.add(path, "device_population", "other", statistics={}).version == 1
    assert [row.reference for row in inputs.list()] == ["other@1", "phones@1", "phones@2"]


def test_versions_added_at_once_are_numbered_without_gaps(
    inputs: EnvironmentInputs, tmp_path: Path
) -> None:
    paths = [file(tmp_path, f"f{n}.csv", f"kbps\n{n}\n") for n in range(6)]
    threads = [
        threading.Thread(target=inputs.add, args=(p, "bandwidth", "b"), kwargs={"statistics": {}})
        for p in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.version for row in inputs.list()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("is_local", [True, False])
def test_a_local_file_has_the_bytes_and_the_ending(
    engine: Engine, blobs: BlobStore, tmp_path: Path, is_local: bool
) -> None:
    inputs = EnvironmentInputs(engine, blobs if is_local else BlobStore("memory://inputs"))
    path = file(tmp_path, "Links.CSV", "kbps\n10\n")
    row = inputs.add(path, "bandwidth", "links", statistics={})
    local = inputs.local_file(row)
    assert (local.name, local.read_text()) == ("links@1.csv", "kbps\n10\n")
    assert inputs.local_file(row) == local
    folder = local.parent
    del inputs
    assert not folder.exists()


def test_damaged_bytes_are_noticed(inputs: EnvironmentInputs, tmp_path: Path) -> None:
    row = inputs.add(file(tmp_path), "device_population", statistics={})
    (stored,) = (p for p in (tmp_path / "blobs").rglob("*") if p.is_file())
    stored.write_text("something else")
    with pytest.raises(CorruptBlob):
        inputs.local_file(row)


def test_a_wrong_name_is_refused_with_what_there_is(
    inputs: EnvironmentInputs, tmp_path: Path
) -> None:
    with pytest.raises(UnknownEnvironmentInput, match="'phones'; there are none yet"):
        inputs.get("phones")
    inputs.add(file(tmp_path), "device_population", statistics={})
    with pytest.raises(UnknownEnvironmentInput, match=r"did you mean phones\?"):
        inputs.get("phons")
    with pytest.raises(UnknownEnvironmentInput, match="the versions of phones are 1 to 1"):
        inputs.get("phones@2")
    with pytest.raises(EnvironmentInputKindConflict, match="the name of device_population"):
        inputs.add(file(tmp_path), "bandwidth", statistics={})
    with pytest.raises(InvalidEnvironmentInputName, match=r"'Phones.v2'.*\(--name NAME\)"):
        inputs.add(file(tmp_path, "Phones.v2.csv"), "bandwidth", statistics={})
    with pytest.raises(InvalidEnvironmentInputName, match="'a@b'"):
        inputs.add(file(tmp_path), "bandwidth", "a@b", statistics={})
    assert len(inputs.list()) == 1


def test_a_file_that_cannot_be_stored_leaves_no_row(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file")
    inputs = EnvironmentInputs(engine, BlobStore(str(tmp_path / "in-the-way" / "blobs")))
    with pytest.raises(BlobStoreUnreachable):
        inputs.add(file(tmp_path), "device_population", statistics={})
    assert inputs.list() == ()
