"""The tables in docs/models.md are what our files and results say."""

import json
from pathlib import Path

import pytest

from modeling.model_sizes import FLINT_TABLE_5, sizes_of
from modeling.zoo import MODELS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
COMPRESSION = ROOT / "benchmarks" / "results" / "embedding_compression_msg_airline.json"


def row_of(name: str) -> list[str]:
    rows = [line.strip("| ").split("|") for line in PAGE.read_text().splitlines()]
    (row,) = [row for row in rows if len(row) == 10 and row[1].strip() == f"`{name}`"]
    return [cell.strip() for cell in row]


def shows(cell: str, value: float) -> bool:
    """Whether a number is this value, to the decimals that are shown."""
    decimals = len(cell.partition(".")[2])
    return cell == f"{value:,.{decimals}f}"


@pytest.mark.parametrize("name", MODELS)
def test_the_page_has_flints_figures_and_our_counts(name):
    letter, _, _, theirs, ours, storage, _, network, our_network, _ = row_of(name)
    published = FLINT_TABLE_5[name]
    assert letter == published.letter
    assert shows(theirs, published.parameters)
    assert shows(ours, MODELS[name].parameter_count)
    assert float(storage) == published.storage_mb
    assert network == ("" if published.network_mb is None else f"{published.network_mb:.2f}")
    assert shows(our_network, 8 * MODELS[name].parameter_count / 1e6)


@pytest.mark.integration
def test_the_page_has_the_sizes_of_the_small_models_files(spec, artifact):
    assert_storage(spec, artifact)


@pytest.mark.integration
def test_the_page_has_the_sizes_of_the_larger_models_files(larger, larger_artifact):
    assert_storage(larger, larger_artifact)


def assert_storage(spec, artifact) -> None:
    sizes = sizes_of(spec, artifact.manifest)
    row = row_of(spec.name)
    assert shows(row[6], sizes.storage_bytes / 1e6)
    assert row[9] == sizes.size_class


def test_the_page_has_the_measured_quality_of_smaller_tables():
    whole, *smaller = json.loads(COMPRESSION.read_text())["result"]["tables"]
    page = PAGE.read_text()
    for table in [whole, *smaller]:
        figures = (table["auprc_mean"], table["auprc_least"], table["auprc_most"])
        assert "{:.3f} ({:.3f}-{:.3f})".format(*figures) in page
    assert f"{whole['table_bytes'] / 1e6:.2f} MB, reaches" in page
