"""`flint catalog` from files to a contract and back, as a user types it."""

import json
from pathlib import Path

import pytest

from flint.cli import entry

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "examples" / "features"


@pytest.fixture
def flint(database_url, tmp_path, monkeypatch, capsys):
    """Run a command: exit code, what it prints, what it says on stderr."""
    monkeypatch.setenv("FLINT_DATABASE_URL", database_url)
    monkeypatch.setenv("FLINT_HOME", str(tmp_path))

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def answer(flint):
    """The one JSON value of a command that succeeds."""

    def run(*arguments: object):
        code, out, err = flint("catalog", *arguments, "--json")
        assert code == 0, err
        (line,) = out.splitlines()
        return json.loads(line)

    return run


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (FOLDER / "features.yaml").read_text()
    assert old in text
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_from_files_to_a_contract_and_back(flint, answer, tmp_path):
    assert flint("catalog", "list")[1].startswith("nothing is defined yet")
    plan = answer("plan", FOLDER / "features.py")
    assert [each["action"] for each in plan["changes"]] == ["create"] * 7
    assert flint("catalog", "plan", FOLDER / "features.py", "--exit-code")[0] == 3

    done = answer("apply", FOLDER / "features.py", "--expect", plan["registry_sha256"])
    assert done == plan | {"applied": True}
    # The same in YAML is the same.
    assert flint("catalog", "plan", FOLDER / "features.yaml", "--exit-code")[0] == 0

    listed = {each["name"]: each for each in answer("list")}
    assert len(listed) == 7
    assert [each["name"] for each in answer("list", "entity")] == ["ad", "user"]
    shown = answer("show", "ads_ctr_v1")
    assert shown["contract_sha256"] == listed["ads_ctr_v1"]["contract_sha256"]
    assert shown["contract_sha256"] == done["contracts"][0]["sha256"]
    assert shown["contract_sha256"] in flint("catalog", "show", "ads_ctr_v1")[1]

    # What is shown as YAML can be applied again, and is what there is.
    written = tmp_path / "service.yaml"
    written.write_text(flint("catalog", "show", "ads_ctr_v1", "--yaml")[1])
    assert answer("plan", written)["changes"] == []


def test_a_change_is_told_in_plan_diff_history_and_lineage(flint, answer, tmp_path):
    answer("apply", FOLDER / "features.yaml")
    path = changed(tmp_path, "ttl: 2d", "ttl: 36h")
    code, out, _ = flint("catalog", "plan", path)
    assert code == 0
    assert "~ feature_view ad_stats (version 2)\n    ttl: 2d -> 36h\n" in out
    assert "because of feature_view ad_stats" in out
    old = answer("show", "ads_ctr_v1")["contract_sha256"]
    answer("apply", path)

    values = [{"path": "ttl", "old": "2d", "new": "36h"}]
    assert answer("diff", "ad_stats")["values"] == values
    assert answer("diff", "ad_stats@1", "ad_stats@2")["values"] == values
    assert answer("diff", "ad_stats@2", "ad_stats@1")["values"][0]["new"] == "2d"
    history = answer("history", "ads_ctr_v1")
    assert [each["version"] for each in history["versions"]] == [1]
    first, second = [each["sha256"] for each in history["contracts"]]
    assert first == old != second
    assert [each["changes"] for each in answer("history")][1] == [
        {"action": "update", "kind": "feature_view", "name": "ad_stats", "version": 2}
    ]
    lineage = answer("lineage", "entity/ad")
    assert lineage["needed_by"] == [
        ["feature_view ad_stats", "entity ad"],
        ["feature_view ad_views", "entity ad"],
        ["feature_service ads_ctr_v1", "feature_view ad_views"],
        ["feature_service ads_ctr_v1", "feature_view ad_stats"],
    ]
    assert list(lineage["contracts"]) == ["ads_ctr_v1"]
    assert (
        "  feature_view ad_stats\n    entity ad\n" in flint("catalog", "lineage", "ads_ctr_v1")[1]
    )


def test_deleting(flint, answer):
    answer("apply", FOLDER / "features.yaml")
    code, out, err = flint("catalog", "apply", "--delete", "asset/ad_categories")
    assert (code, out) == (2, "")
    assert "feature_service ads_ctr_v1 needs it" in err
    done = answer(
        "apply", "--delete", "asset/ad_categories", "--delete", "feature_service/ads_ctr_v1"
    )
    assert [each["action"] for each in done["changes"]] == ["delete", "delete"]
    assert answer("show", "ads_ctr_v1")["deleted"] is True
    code, out, _ = flint("catalog", "show", "ads_ctr_v1")
    assert (code, "was deleted with version 2" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan"], "give the files of definitions"),
        (["apply", "--prune"], "give the files of definitions"),
        (["plan", "nowhere.yaml"], "there is no nowhere.yaml"),
        (["apply", "--delete", "user"], "is not KIND/NAME"),
        (["apply", "--delete", "entity/nobody"], "there is no entity nobody to delete"),
        (["apply", FOLDER / "features.py", "--expect", "abc"], "64 hexadecimal digits"),
        (["apply", FOLDER / "features.py", "--expect", "0" * 64], r"[FLN-2810]"),
        (["apply", FOLDER], "is defined in features.py too"),
        (["list", "views"], "'views' is no kind"),
        (["show", "nothing"], "there are none yet: apply some"),
        (["history", "nothing"], "there is no definition 'nothing'"),
        (["diff", "nothing"], "there is no definition 'nothing'"),
        (["lineage", "nothing"], "there is no definition 'nothing'"),
    ],
)
def test_a_mistake_is_one_sentence(flint, arguments, said):
    code, out, err = flint("catalog", *arguments)
    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert said in line


def test_a_missing_asset_file_is_told_until_it_is_added(flint, answer, tmp_path):
    said = flint("catalog", "apply", FOLDER / "features.py")[2]
    assert "warning: the file of asset ad_categories is not in the blob store" in said
    assert answer("asset", "list")[0]["is_there"] is False
    path = tmp_path / "words.txt"
    path.write_text("books\ncars\n")
    code, out, err = flint("catalog", "asset", "add", path)
    assert (code, out) == (2, "")
    assert "no asset's definition names" in err
    assert "[FLN-2951]" in err
    words = ("books", "films", "food", "games", "garden", "music", "sports", "travel")
    path.write_text("".join(f"{word}\n" for word in words))
    [added] = answer("asset", "add", path)
    assert added["assets"] == ["ad_categories"]
    assert "already" in flint("catalog", "asset", "add", path)[1]
    assert answer("asset", "list")[0]["is_there"] is True
    assert flint("catalog", "plan", FOLDER / "features.py")[2] == ""
