"""`flint catalog vocab`, as a user types it."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.definitions.files import load_definitions
from flint.cli import entry


@pytest.fixture
def flint(capsys):
    """Run a command: exit code, what it prints, what it says on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main(["catalog", "vocab", *(str(argument) for argument in arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def clicks(tmp_path) -> Path:
    path = tmp_path / "clicks.parquet"
    rows = range(400)
    pq.write_table(
        pa.table(
            {
                "user": [f"u{n % 25}" for n in rows],
                "clicked": [int(n % 7 == 0 or n % 11 == 3) for n in rows],
                "ad": [f"ad {n % 7}" for n in rows],
                "slot": [n % 3 for n in rows],
                "price": [n / 7 for n in rows],
            }
        ),
        path,
    )
    return path


def test_a_built_vocabulary_can_be_pasted_into_definitions(flint, clicks, tmp_path):
    file, definition = tmp_path / "Ads 2026.txt", tmp_path / "assets.yaml"
    code, out, err = flint(
        *("build", clicks, "--column", "ad", "--output", file, "--max-entries", 5),
        *("--client", "user", "--min-clients", 2, "--definition", definition, "--json"),
    )
    assert code == 0, err
    (line,) = out.splitlines()
    said = json.loads(line)
    content = file.read_bytes()
    assert content.startswith(b"ad 0\n")
    assert said["asset"] == {
        "name": "ads_2026",
        "type": "vocabulary",
        "version": 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "entries": 5,
    }
    assert said["transform"]["parameters"] == {"asset": "ads_2026", "seed": 0, "unknown": 5}
    assert (said["distinct"], said["cut"], said["tokens"]) == (7, 2, 400)
    (asset,) = load_definitions([definition]).definitions.values()
    assert asset.sha256 == said["sha256"]


def test_the_words_of_a_build_are_a_file_of_definitions(flint, clicks, tmp_path):
    code, out, _ = flint(
        *("build", clicks, "--column", "slot", "--output", tmp_path / "slots.txt"),
        *("--hash-buckets", 4),
    )
    assert code == 0
    pasted = tmp_path / "pasted.yaml"
    pasted.write_text(out[out.index("assets:") : out.index("# in a feature")])
    assert len(load_definitions([pasted]).definitions) == 1
    assert "hash_buckets: 4" in out
    assert "coverage      1" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--column", "ads"), "did you mean ad?"),
        (("--column", "price"), "bucketize it first"),
        (("--column", "ad", "--min-count", 999), "lower --min-count"),
        (("--column", "ad", "--min-clients", 2), "name the column with --client"),
        (("--column", "ad", "--max-bytes", "much"), "such as 2MB"),
        (("--column", "ad", "--name", "Ads!"), "small letters"),
        (("--column", "ad", "--unknown", 1, "--hash-buckets", 2), "one of unknown"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(flint, clicks, tmp_path, arguments, said):
    file = tmp_path / "ads.txt"
    code, out, err = flint("build", clicks, "--output", file, *arguments)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(flint, clicks, tmp_path):
    code, _, err = flint(
        "build", clicks, "--column", "ad", "--output", tmp_path / "none" / "ads.txt"
    )
    assert code == 2
    assert "there is no folder" in err
    assert "counting" not in err


def test_advice_compares_and_recommends(flint, clicks, tmp_path):
    plot = tmp_path / "sizes.svg"
    arguments = ("advise", clicks, "--label", "clicked", "--client", "user", "--entries", 7)
    code, out, err = flint(*arguments, "--entries", 2, "--plot", plot)
    assert code == 0, err
    assert "columns: ad, slot" in err
    for words in ("in a vocabulary", "hashed", "recommended:", "tokens sharing a bucket", "FLINT"):
        assert words in out
    assert plot.read_bytes().startswith(b"<?xml")

    code, out, _ = flint(*arguments, "--column", "ad", "--json")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert [(each["kind"], each["entries"]) for each in found["schemes"]] == [
        ("full", 7),
        ("hashed", 7),
    ]
    assert found["schemes"][0]["vocabulary_bytes"] == 7 * len("ad 0\n")
    assert found["schemes"][0]["coverage"] == 1.0
    assert found["recommended"]["reason"].startswith("recommended:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--label", "price", "--client", "user"), "labels must be 0 or 1"),
        (("--label", "clicked", "--client", "users"), "did you mean user?"),
        (("--label", "clicked", "--client", "user", "--column", "price"), "bucketize it first"),
        (("--label", "clicked", "--client", "user", "--plot", "a.pdf"), "neither .svg nor .png"),
        (("--label", "clicked", "--client", "user", "--entries", 0), "range"),
    ],
)
def test_a_mistake_in_asking_for_advice_is_one_sentence(flint, clicks, arguments, said):
    code, out, err = flint("advise", clicks, *arguments)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
