"""Python files work as in a Feast repository, YAML says the same, and neither leaves a trace."""

import sys
from pathlib import Path

import pytest

from feature_catalog.definitions.catalog_set import check_set
from feature_catalog.definitions.errors import (
    DefinitionFileFailed,
    DuplicateDefinition,
    InvalidDefinition,
    UnreadableDefinitions,
)
from feature_catalog.definitions.files import MAX_FILE_BYTES, load_definitions
from tests.feature_catalog.definitions.examples import FOLDER, parsed

ENTITY = "from feature_catalog.definitions import Entity\nuser = Entity(name='user')\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(key) for key in load_definitions([folder]).definitions)


def test_the_example_in_python_is_the_example_in_yaml():
    python = load_definitions([FOLDER / "features.py"])
    check_set(python)
    assert python.definitions == parsed().definitions


def test_files_of_a_folder_import_each_other_and_are_forgotten(tmp_path):
    write(
        tmp_path,
        entities_py=ENTITY,
        more__views_py=(
            "from datetime import timedelta\n"
            "from entities import user\n"
            "from feature_catalog.definitions import CloudSource, FeatureView, Field, Float32\n"
            "views = FeatureView('clicks', entities=[user], ttl=timedelta(days=1),\n"
            "    source=CloudSource(path='c.parquet'), schema=[Field('ctr', Float32)])\n"
        ),
        assets_yaml="assets: []\nentities: [{name: ad}]\n",
    )
    path = list(sys.path)
    for _ in range(2):  # the second time nothing of the first is left over
        assert names(tmp_path) == ["entity ad", "entity user", "feature_view clicks"]
    assert "entities" not in sys.modules
    assert "more" not in sys.modules
    assert sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))


def test_views_stand_for_their_features_as_in_feast(tmp_path):
    write(
        tmp_path,
        f_py=ENTITY
        + (
            "from feature_catalog.definitions import *\n"
            "v = FeatureView('v', entities=[user], source=CloudSource(table='v'),\n"
            "    schema=[Field('a', Int64), Field('b', Int64), Field('c', Int64)])\n"
            "whole = FeatureService('whole', [v])\n"
            "some = FeatureService('some', [v[['a', 'b']], 'v:c'])\n"
        ),
    )
    given = load_definitions([tmp_path])
    assert given.service("whole").features == given.service("some").features
    assert [feature.ref for feature in given.service("whole").features] == ["v:a", "v:b", "v:c"]


def test_what_a_file_prints_is_no_result(tmp_path, capsys):
    write(tmp_path, f_py=ENTITY + "print('hello')\n")
    load_definitions([tmp_path])
    assert capsys.readouterr().out == ""


def test_a_mistake_in_python_names_its_line(tmp_path):
    write(tmp_path, f_py=ENTITY + "ad = Entity(\n    name='Ad',\n)\n")
    with pytest.raises(InvalidDefinition, match=r"^f.py line [345]: name = 'Ad'"):
        load_definitions([tmp_path])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = undefined\n", r"f.py line 2: running it raised NameError: name 'undefined'"),
        ("import nothing_of_that_name\n", "f.py line 1: running it raised ModuleNotFoundError"),
        ("x = (\n", r"f.py line 1: is no Python"),
        ("import sys\nsys.exit(0)\n", "line 2: running it raised SystemExit"),
    ],
)
def test_a_python_file_that_fails_is_told_with_its_line(tmp_path, text, said):
    write(tmp_path, f_py=text)
    with pytest.raises(DefinitionFileFailed, match=said):
        load_definitions([tmp_path])


def test_one_name_in_two_files_is_refused(tmp_path):
    write(tmp_path, a_py=ENTITY, b_yaml="entities: [{name: user}]\n")
    with pytest.raises(
        DuplicateDefinition, match=r"^b.yaml: entities.user is defined in a.py too; keep one"
    ):
        load_definitions([tmp_path])


def test_files_given_twice_are_read_once(tmp_path):
    write(tmp_path, a_yaml="entities: [{name: user}]\n")
    assert len(load_definitions([tmp_path, tmp_path / "a.yaml"]).definitions) == 1


@pytest.mark.parametrize("name", ["json.py", "not-a-name.py", "numpy.py"])
def test_a_file_that_cannot_be_imported_under_its_name_is_refused(tmp_path, name):
    import numpy as np  # loaded, whoever runs this test alone

    assert np.__name__ == "numpy"
    (tmp_path / name).write_text(ENTITY)
    with pytest.raises(UnreadableDefinitions, match="rename it"):
        load_definitions([tmp_path])


def test_paths_that_hold_no_definitions_are_refused(tmp_path):
    with pytest.raises(UnreadableDefinitions, match=r"there is no .*nowhere"):
        load_definitions([tmp_path / "nowhere"])
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UnreadableDefinitions, match="neither Python"):
        load_definitions([tmp_path / "x.txt"])
    with pytest.raises(UnreadableDefinitions, match="there is no definition"):
        load_definitions([tmp_path])
    (tmp_path / "big.py").write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(UnreadableDefinitions, match="larger than"):
        load_definitions([tmp_path])
    (tmp_path / "big.py").write_bytes(b"\xff")
    with pytest.raises(UnreadableDefinitions, match="not UTF-8"):
        load_definitions([tmp_path])
