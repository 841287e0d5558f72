"""An environment's inputs by path and by name, each to a file with a digest."""

import hashlib

import numpy as np
import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.environment_inputs import KINDS, EnvironmentInputs
from simulation.catalog_inputs import CatalogInputs, WrongInputKind
from simulation.environment import parse_environment
from simulation.inputs import FileInputs, UnresolvedInput
from simulation.traces.generate import write_world
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.world import load_world

pytestmark = pytest.mark.integration

FILES = {kind: f"{kind}.parquet" for kind in KINDS} | {"availability": "sessions.parquet"}
PATHS = "\n".join(f"{kind}: {file}" for kind, file in FILES.items())
VERSIONS = dict(zip(KINDS, ("", "@1", "@latest", "@1"), strict=True))
NAMES = "\n".join(f"{kind}: {kind}-1{version}" for kind, version in VERSIONS.items())


@pytest.fixture
def folder(tmp_path):
    write_world(tmp_path, GeneratedAvailability(30), seed=1)
    return tmp_path


@pytest.fixture
def catalog(engine: Engine, blobs: BlobStore, folder) -> EnvironmentInputs:
    inputs = EnvironmentInputs(engine, blobs)
    for kind in KINDS:
        inputs.add(folder / FILES[kind], kind, f"{kind}-1", statistics={})
    return inputs


def test_a_world_of_names_is_the_world_of_the_files(catalog, folder, tmp_path):
    by_path = load_world(parse_environment(f"dataset: d\n{PATHS}"), FileInputs(folder))
    resolver = CatalogInputs(tmp_path / "elsewhere", catalog)
    by_name = load_world(parse_environment(f"dataset: d\n{NAMES}"), resolver)
    assert np.array_equal(by_name.trace.start_s, by_path.trace.start_s)
    assert np.array_equal(by_name.profiles.median_s, by_path.profiles.median_s)
    assert np.array_equal(by_name.bandwidth.down.median_kbps, by_path.bandwidth.down.median_kbps)
    for kind in KINDS:
        found = by_name.inputs[kind]
        assert found.sha256 == hashlib.sha256((folder / FILES[kind]).read_bytes()).hexdigest()
        assert found.sha256 == by_path.inputs[kind].sha256
        assert (found.version, by_path.inputs[kind].version) == (1, None)


def test_paths_are_relative_to_the_folder_as_without_a_catalog(catalog, folder):
    resolver = CatalogInputs(folder, catalog)
    assert resolver.resolve("bandwidth", "bandwidth.parquet") == FileInputs(folder).resolve(
        "bandwidth", "bandwidth.parquet"
    )


def test_an_input_of_another_kind_is_refused_in_one_sentence(catalog, folder):
    resolver = CatalogInputs(folder, catalog)
    with pytest.raises(WrongInputKind) as caught:
        resolver.resolve("bandwidth", "device_profiles-1")
    assert str(caught.value).startswith("bandwidth: device_profiles-1@1 is device_profiles; ")


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("phones", r"^bandwidth: there is no trace 'phones'.* \[FLN-1714\]$"),
        ("bandwidth-2", "did you mean bandwidth-1"),
        ("bandwidth-1@7", "the versions of bandwidth-1 are 1 to 1"),
        ("none.csv", "^bandwidth: there is no file none.csv"),
    ],
)
def test_what_is_not_there_is_said_with_the_key(catalog, folder, reference, sentence):
    with pytest.raises(UnresolvedInput, match=sentence) as caught:
        CatalogInputs(folder, catalog).resolve("bandwidth", reference)
    assert str(caught.value).count("[FLN-") == 1
