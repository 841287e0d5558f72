"""Windows and speeds of an identity, and the file they come in."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.imposed_conditions import (
    AvailabilityWindows,
    Epoch,
    ImposedConditions,
    InvalidImposedConditions,
    read_conditions,
    write_conditions,
    write_epoch,
)
from simulation.durations import TaskWork, task_duration
from simulation.traces.sessions import AvailabilityTrace
from simulation.traces.spans import SpanRepairs

PHONE = ImposedConditions(
    0.05, 2.5e6, 1e6, AvailabilityWindows(((10.0, 60.0), (100.0, 130.5)), repeat_every_s=200.0)
)


def trace_of(windows: AvailabilityWindows) -> AvailabilityTrace:
    """The same windows as a dry-run holds them."""
    import pyarrow as pa

    return AvailabilityTrace(
        client_ids=pa.array(["a"]),
        offsets=np.array([0, len(windows.spans_s)]),
        start_s=np.array([start for start, _ in windows.spans_s]),
        end_s=np.array([end for _, end in windows.spans_s]),
        period_s=np.array([windows.repeat_every_s or math.inf]),
        device_model=None,
        device_models=(),
        repairs=SpanRepairs(rows=len(windows.spans_s)),
    )


@st.composite
def some_windows(draw) -> AvailabilityWindows:
    bounds = sorted(draw(st.sets(st.integers(0, 500), min_size=2, max_size=12)))
    bounds = bounds[: len(bounds) // 2 * 2]
    spans = [(float(a), float(b)) for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
    if not draw(st.booleans()):
        return AvailabilityWindows(tuple(spans))
    period_s = spans[-1][1] + draw(st.integers(0, 50))
    if spans[0][0] > 1 and draw(st.booleans()):  # the last goes on in the next repeat
        period_s = spans[-1][1]
        spans[-1] = (spans[-1][0], period_s + spans[0][0] - 1)
    return AvailabilityWindows(tuple(spans), period_s)


@given(windows=some_windows(), t_s=st.floats(0, 3000, allow_nan=False))
def test_windows_are_those_of_the_trace_of_a_dry_run(windows, t_s):
    assert windows.window(t_s) == trace_of(windows).window(0, t_s)


@given(windows=some_windows(), t_s=st.floats(-1000, 0, exclude_max=True))
def test_no_window_is_open_before_the_epoch(windows, t_s):
    start_s, end_s = windows.window(t_s)
    assert 0 <= start_s < end_s
    assert windows.window(start_s)[1] == end_s


def test_without_windows_a_device_is_there_from_the_epoch_on():
    free = ImposedConditions()
    assert free.window(-5) == (0, math.inf)
    assert free.window(1e9) == (0, math.inf)
    assert AvailabilityWindows(()).window(3) == (math.inf, math.inf)


def test_phases_take_as_long_as_in_a_dry_run():
    work = TaskWork(local_epochs=3, max_records=100, download_bytes=750_000, upload_bytes=751_234)
    expected = task_duration(
        work, records=140, per_example_s=0.05, down_bits_per_s=2.5e6, up_bits_per_s=1e6
    )
    assert PHONE.download_s(750_000) == expected.download_s
    assert PHONE.train_s(100, 3) == pytest.approx(expected.train_s, rel=1e-12)
    assert PHONE.upload_s(751_234) == expected.upload_s
    free = ImposedConditions()
    assert free.download_s(10**9) == free.train_s(10**6, 10) == free.upload_s(10**9) == 0


def test_conditions_come_back_from_their_file_as_they_were(tmp_path):
    path = tmp_path / "conditions.json"
    devices = {
        "000000": PHONE,
        "000001": ImposedConditions(),
        "000002": ImposedConditions(windows=AvailabilityWindows(())),
        "000003": ImposedConditions(per_example_s=1 / 3),
    }
    write_conditions(path, devices)
    assert read_conditions(path) == devices


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"per_example_s": 0}, "per_example_s is 0; give a number above 0"),
        ({"down_bits_per_s": -1}, "down_bits_per_s is -1"),
        ({"up_bits_per_s": True}, "up_bits_per_s is True"),
        ({"up_bits_per_s": "fast"}, "up_bits_per_s is 'fast'"),
        ({"per_exampel_s": 1}, "the keys are down_bits_per_s"),
        ([], "the keys are"),
        ({"windows": {"repeat_every_s": 5}}, "give spans_s"),
        ({"windows": {"spans_s": [[0]]}}, r"no list of \[start, end\]"),
        ({"windows": {"spans_s": [[5, 5]]}}, "window from 5 to 5 s"),
        ({"windows": {"spans_s": [[-1, 5]]}}, "window from -1 to 5 s"),
        ({"windows": {"spans_s": [[0, 9], [8, 12]]}}, "window from 8 to 12 s"),
        ({"windows": {"spans_s": [[2, 9]], "repeat_every_s": 6}}, "repeat_every_s = 6"),
        ({"windows": {"spans_s": [[0, 9]], "repeat_every_s": 0}}, "repeat_every_s is 0"),
    ],
)
def test_conditions_no_device_can_have_name_the_device(tmp_path, found, said):
    path = tmp_path / "conditions.json"
    path.write_text(json.dumps({"devices": {"000007": found}}))
    with pytest.raises(InvalidImposedConditions, match=f"device 000007.*{said}"):
        read_conditions(path)


@pytest.mark.parametrize("text", ["", "[]", '{"devices": [1]}', '{"devices": {"0": {"up', "{}"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "conditions.json"
    path.write_text(text)
    with pytest.raises(InvalidImposedConditions, match="does not hold conditions"):
        read_conditions(path)


def test_not_a_number_is_refused(tmp_path):
    path = tmp_path / "conditions.json"
    path.write_text('{"devices": {"0": {"per_example_s": NaN}}}')
    with pytest.raises(InvalidImposedConditions, match="per_example_s is nan"):
        read_conditions(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidImposedConditions, match="No such file"):
        read_conditions(tmp_path / "none.json")


def test_an_epoch_is_unknown_until_it_is_set_and_then_stays(tmp_path):
    path, now = tmp_path / "epoch", [0.0]
    epoch = Epoch(path, monotonic=lambda: now[0])
    assert epoch.unix_s() is None
    write_epoch(path, 1234.5)
    now[0] += epoch.poll_s
    assert epoch.unix_s() == 1234.5
    path.unlink()
    now[0] += epoch.poll_s
    assert epoch.unix_s() == 1234.5


def test_an_epoch_that_is_no_moment_is_refused(tmp_path):
    path = tmp_path / "epoch"
    path.write_text("soon")
    with pytest.raises(InvalidImposedConditions, match="'soon'"):
        Epoch(path).unix_s()
