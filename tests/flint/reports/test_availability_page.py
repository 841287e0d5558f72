"""The page on availability: FLINT's figures in words anyone can check, whole and offline."""

import json

import pytest

from flint.availability_evidence import AskedTask, IncompleteTask, gather_evidence
from flint.named_inputs import named_inputs
from flint.reports.availability.evidence import AvailabilityEvidence, criteria_rows, if_independent
from flint.reports.availability.figures import availability_figures
from flint.reports.availability.page import availability_page
from simulation.availability.kept_facts import kept_facts
from tests.flint.reports.availability_facts import (
    FLINT_TABLE_1,
    build_of,
    independent_masks,
    write_facts,
    write_world,
)
from tests.flint.reports.test_page import HOSTILE, Page

TASK = {"update_bytes": 760_000, "records": 5000}


def evidence_of(build, **given):
    return AvailabilityEvidence("app@1", kept_facts(build, source="app@1"), 0.8, **given)


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    facts, world = write_facts(folder / "facts.parquet"), write_world(folder)
    task = AskedTask(**TASK, **{key: str(path) for key, path in world.items()})
    with named_inputs(folder / "home") as inputs:
        return gather_evidence(str(facts), None, task, inputs, least_ratio=0.8)


@pytest.fixture(scope="module")
def page(gathered):
    return Page(availability_page(gathered))


def test_independent_criteria_of_flints_shares_leave_22_percent():
    evidence = evidence_of(build_of(independent_masks(1_000_000)))
    *single, together = criteria_rows(evidence)
    assert [row["clients"] for row in single] == pytest.approx(list(FLINT_TABLE_1.values()))
    assert together["clients"] == pytest.approx(0.70 * 0.34 * 0.93, abs=1e-5)
    assert together["sessions"] == pytest.approx(0.2213, abs=1e-4)
    assert if_independent(evidence)["clients"] == pytest.approx(together["clients"])
    assert [row["clients_without"] for row in single] == pytest.approx(
        [0.34 * 0.93, 0.70 * 0.93, 0.70 * 0.34], abs=1e-5
    )
    text = Page(availability_page(evidence)).text
    assert "22.1 % of the devices have a session that passes all 3 criteria at once" in text


def test_criteria_that_hang_together_leave_more_than_their_product():
    evidence = evidence_of(build_of({0b111: 34, 0b101: 36, 0b000: 30}))
    assert criteria_rows(evidence)[-1]["clients"] == pytest.approx(0.34)
    assert if_independent(evidence)["clients"] == pytest.approx(0.7 * 0.34 * 0.7)


def test_the_page_names_criteria_thresholds_and_categories(page):
    for said in ("Operating system recent enough (2019-09)", "Battery full enough (0.8)",
                 "Account old enough (30 days)", "compute capability", "device state",
                 "user attributes", "If criteria were independent"):  # fmt: skip
        assert said in page.text


def test_the_week_has_its_peak_trough_and_all_168_hours(page, gathered):
    rows = page.data("week")
    assert len(rows) == 168
    assert float(rows[3]["mean_devices_available"]) == pytest.approx(2700)
    assert float(rows[3]["share_of_all_devices"]) == pytest.approx(0.3)
    assert "2,700 (30.0 %) are available in the busiest hour (Monday, 03:00)" in page.text
    assert "900 in the quietest hour (Monday, 15:00): 0.33 of the peak" in page.text


def test_hours_that_were_not_observed_stay_gaps_and_days_without_a_date_are_numbered():
    hourly = [100.0] * 24 + [None] * 144
    text = Page(
        availability_page(evidence_of(build_of({7: 1000}, hourly=hourly, has_weekdays=False)))
    ).text
    assert "144 of the 168 hours were not observed" in text
    assert "day 1, 00:00" in text
    assert "does not say on which weekday" in text


def test_a_task_is_set_against_the_spans(page, gathered):
    found = gathered.completion
    # fast: 5000 * 0.01 s and 1.52 s of transfers.
    assert found.duration_s.min() == pytest.approx(50 + 1.52)
    assert f"{100 * found.share_from_start:.1f} % of the spans outlast a task" in page.text
    assert f"{100 * gathered.sessions_outlasting:.1f} % of all sessions of the log" in page.text
    assert "5,000 records a device, 1 epoch, 760 kB down and 760 kB up" in page.text
    rows = page.data("lengths")
    shares = [float(row["share of tasks done"]) for row in rows]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_groups_that_are_shifted_out_are_warned_of_in_words(page, gathered):
    assert any(s.group == "2017" and s.criterion == "min_os_release" for s in gathered.warned)
    assert (
        "“operating system recent enough (2019-09)” shrinks OS release “2017” from 33" in page.text
    )
    assert not any(s.criterion == "min_battery" for s in gathered.warned)  # falls on all alike
    rows = page.data("fairness")
    slow = next(
        r for r in rows
        if (r["dimension"], r["group"], r["criterion"]) == ("device model", "slow", "all")
    )  # fmt: skip
    assert float(slow["ratio"]) == pytest.approx(0.15, abs=0.04)


def test_device_and_system_shares_are_beside_each_other(page):
    rows = page.data("devices")
    assert {row["of"] for row in rows} == {"device model", "OS release"}
    for of in ("device model", "OS release"):
        shares = [row for row in rows if row["of"] == of]
        assert sum(float(row["share"]) for row in shares) == pytest.approx(1.0)
        assert sum(float(row["eligible_share"]) for row in shares) == pytest.approx(1.0)


def test_the_page_is_whole_offline_and_says_what_it_does_not_tell(page, gathered):
    html = availability_page(gathered)
    assert len(page.figures) == 5
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert any("default-src 'none'" in (given.get("content") or "") for given in page.attributes)
    assert "who never opens the app is not in them" in page.text
    assert html == availability_page(gathered)


def test_a_build_of_which_little_is_known_still_makes_a_page():
    plain = build_of({0: 50}, criteria=(), spans=[0] * 82, problems={})
    text = Page(availability_page(evidence_of(plain))).text
    assert "built without any criterion" in text
    assert "there are no spans" in text


def test_names_cannot_become_markup(tmp_path):
    build = build_of({7: 10}, problems={HOSTILE: {"count": 1, "dropped": True, "example": HOSTILE}})
    html = availability_page(AvailabilityEvidence(HOSTILE, kept_facts(build, source="x"), 0.8))
    assert "<script" not in html
    assert "alert" in Page(html).text


def test_figures_are_json_and_those_of_the_page(gathered):
    figures = availability_figures(gathered)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["criteria"][-1]["criterion"] == "all"
    assert figures["task"]["share_from_start"] == gathered.completion.share_from_start
    assert len(figures["fairness"]["warnings"]) == len(gathered.warned)
    assert figures["not_told"] == {}


def test_a_task_without_speeds_or_links_is_refused(tmp_path):
    facts = write_facts(tmp_path / "facts.parquet", clients=100)
    with named_inputs(tmp_path / "home") as inputs:
        with pytest.raises(IncompleteTask, match="--profiles and --bandwidth; give them too"):
            gather_evidence(str(facts), None, AskedTask(**TASK), inputs, least_ratio=0.8)
        found = gather_evidence(str(facts), None, AskedTask(), inputs, least_ratio=0.8)
    assert found.completion is None
    assert set(found.not_told) == {"task", "device tier"}
