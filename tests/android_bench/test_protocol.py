"""The worker protocol: what is written is read again, and anything else is one sentence."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_bench.assembled_results import failed_result, joined
from android_bench.protocol import (
    MAX_RESULT_BYTES,
    BenchResult,
    BenchSpec,
    FailedRun,
    InvalidBenchResult,
    InvalidBenchSpec,
    MismatchedBenchResult,
    Validity,
)
from tests.android_bench.results import BUILD, DEVICE, RUN, SPEC, inference, result


@pytest.mark.parametrize(
    "written",
    [
        result(),
        inference(1, 2, 3),
        result(runs=(), build=None, validity=Validity(False, ("it hung",))),
        result(failed=(), runs=(replace(RUN, requested_duty=0.2, achieved_duty=0.21, attempts=2),)),
        failed_result(DEVICE, SPEC, "offline\nsince \x07 noon"),
    ],
)
def test_a_result_that_was_written_is_read_again(written: BenchResult):
    assert BenchResult.from_json(written.to_json().encode()) == written


def test_a_spec_that_was_written_is_read_again_and_equal_specs_have_equal_bytes():
    read = BenchSpec.from_json(SPEC.to_json().encode())
    assert read == SPEC
    assert read.to_json() == replace(SPEC).to_json()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"records": 0}, "records"),
        ({"records": 1_000_001}, "records"),
        ({"repeats": True}, "repeats"),
        ({"batch_size": "20"}, "batch_size"),
        ({"task": "evaluate"}, "task"),
        ({"model_sha256": "A" * 64}, "model_sha256"),
        ({"model": "../../etc"}, "model"),
        ({"schema": "flint-bench/2"}, "schema"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_spec_no_worker_can_run_is_refused_by_the_key(change, named):
    raw = json.loads(SPEC.to_json()) | change
    with pytest.raises(InvalidBenchSpec, match=named):
        BenchSpec.from_json(json.dumps(raw).encode())


def test_a_spec_made_here_is_checked_like_one_from_outside():
    assert SPEC.checked() == SPEC
    with pytest.raises(InvalidBenchSpec, match="repeats is 0"):
        replace(SPEC, repeats=0).checked()


RUBBISH = [
    b"",
    b"Segmentation fault",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    result().to_json().encode()[:-30],
    b"[" * 100_000,
    b'{"schema":"flint-bench/1","schema":"flint-bench/1"}',
    b'{"schema":' + b"9" * 5000 + b"}",
    b'{"schema":1e999}',
    b'{"schema":NaN}',
]


@pytest.mark.parametrize("data", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_is_one_sentence(data):
    with pytest.raises(InvalidBenchResult) as refused:
        BenchResult.from_json(data, source="the result of pixel-6")
    assert "the result of pixel-6" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_oversize_result_is_not_parsed():
    with pytest.raises(InvalidBenchResult, match="at most"):
        BenchResult.from_json(b" " * (MAX_RESULT_BYTES + 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wall_s", -1.0),
        ("wall_s", 0),
        ("wall_s", None),
        ("cpu_s", "1.0"),
        ("passes", 0),
        ("passes", 1.0),
        ("memory_peak_bytes", -5),
        ("memory_peak_bytes", 1),
        ("memory_peak_bytes", 2**60),
        ("latencies_ns", [1, -2]),
        ("latencies_ns", [5]),
        ("latencies_ns", "none"),
        ("loss_first", None),
        ("loss_last", True),
        ("repeat", 3),
        ("update_bytes", 1.5),
    ],
)
def test_a_run_nothing_can_have_measured_is_refused(key, value):
    raw = json.loads(result().to_json())
    raw["runs"][0][key] = value
    with pytest.raises(InvalidBenchResult, match=r"runs"):
        BenchResult.from_json(json.dumps(raw).encode())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_written(number):
    with pytest.raises(ValueError, match="JSON"):
        result(runs=(replace(RUN, wall_s=number),)).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"validity": {"ok": True, "reasons": ["but"]}},
        {"validity": {"ok": False, "reasons": []}},
        {"runs": []},
        {"build": None},
        {"failed": [{"repeat": 0, "reason": "also measured"}]},
        {"derived": {"train_s_mean": 1.0}},
    ],
)
def test_a_result_that_contradicts_itself_is_refused(change):
    raw = json.loads(result().to_json()) | change
    with pytest.raises(InvalidBenchResult):
        BenchResult.from_json(json.dumps(raw).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_result_or_one_error(data):
    with pytest.raises(InvalidBenchResult):
        BenchResult.from_json(data)


@given(st.data())
def test_any_value_in_any_place_is_a_result_or_one_error(data):
    raw = json.loads(result().to_json())
    place = data.draw(st.sampled_from([raw, raw["device"], raw["spec"], raw["runs"][1]]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
    )
    try:
        read = BenchResult.from_json(json.dumps(raw).encode())
    except InvalidBenchResult:
        return
    assert json.loads(read.to_json()) == raw


def test_a_result_answers_its_own_spec_only():
    result().check_answers(SPEC)
    with pytest.raises(MismatchedBenchResult, match="records 5000, and 10"):
        result().check_answers(replace(SPEC, records=10))
    other_model = result(build=replace(BUILD, model_sha256="c" * 64))
    with pytest.raises(MismatchedBenchResult, match="push the model again"):
        other_model.check_answers(SPEC)


def test_single_runs_are_joined_in_order_and_failures_are_kept():
    one = replace(SPEC, repeats=1)
    singles = [result(spec=one, runs=(replace(RUN, repeat=r),)) for r in (2, 0)]
    whole = joined(DEVICE, SPEC, singles, [FailedRun(1, "killed by\nsignal 9")])
    assert [run.repeat for run in whole.runs] == [0, 2]
    assert whole.failed == (FailedRun(1, "killed by signal 9"),)
    assert whole.validity == Validity(True)
    assert BenchResult.from_json(whole.to_json().encode()) == whole


def test_a_device_on_which_every_repeat_failed_is_not_ok_and_says_why():
    failed = [FailedRun(r, f"exit code {r}") for r in range(3)]
    whole = joined(DEVICE, SPEC, [], failed)
    assert whole.validity == Validity(False, ("no repeat gave a result; the first: exit code 0",))
    assert whole.runs == ()
