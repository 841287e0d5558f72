"""Numbers of records without a data set: read from a file, or drawn as the distribution says."""

import numpy as np
import pytest

from simulation.environment import InvalidEnvironmentValue, RecordCounts, parse_environment
from simulation.record_counts import InvalidRecordCounts, draw_record_counts, read_record_counts

WORLD = "availability: w.csv\ndevice_profiles: p.csv\nbandwidth: l.csv\n"


def test_counts_are_drawn_lognormal_around_their_median():
    drawn = draw_record_counts(RecordCounts(median=10.0, log_stdev=1.2, most=400), 200_000, seed=1)
    assert (drawn.min(), drawn.max(), np.median(drawn)) == (1, 400, 10)
    inside = np.log(drawn[(drawn > 1) & (drawn < 400)])
    assert np.quantile(drawn, 0.8413) == pytest.approx(10 * np.exp(1.2), rel=0.03)
    assert inside.size > 180_000


def test_without_a_spread_everyone_holds_the_median():
    assert set(draw_record_counts(RecordCounts(median=7.0), 1000, seed=1)) == {7}


def test_counts_of_a_file_are_those_of_its_rows(tmp_path):
    file = tmp_path / "population.csv"
    file.write_text("client,records\na,3\nb,0\nc,12\n")
    assert read_record_counts(file).tolist() == [3, 0, 12]


@pytest.mark.parametrize("value", ["-1", "2.5", "2000000000"])
def test_a_count_nobody_can_hold_is_refused_with_its_row(tmp_path, value):
    file = tmp_path / "population.csv"
    file.write_text(f"records\n3\n{value}\n")
    with pytest.raises(InvalidRecordCounts, match=r"row 2: records is .*whole number") as caught:
        read_record_counts(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: c.parquet\npopulation: {records: r.csv}", "both say how many records"),
        ("population: {records: {median: 5}}", "add clients"),
        ("population: {clients: 5, records: {log_stdev: 1}}", "give either the path"),
        ("population: {records: a@1}", "'a@1' is no path"),
        ("population: {records: 5}", "must be a file path, or a block with median"),
        ("population: {clients: 5, records: {median: 0}}", "population.records.median = 0"),
    ],
)
def test_a_population_that_says_it_wrongly_is_refused(text, said):
    with pytest.raises(InvalidEnvironmentValue) as caught:
        parse_environment(WORLD + text)
    assert said in str(caught.value)
