"""A trace file is read as it is meant, or refused with client, row and mend."""

import pyarrow as pa
import pytest

from feature_catalog.table_files import EmptyDataFile, MissingColumn, UnreadableDataFile
from simulation.traces.session_files import read_sessions
from simulation.traces.spans import InvalidSpan, OverlappingSpans, SpanRules, repairs_in_words


def refusal(kind, path, *args, **kwargs) -> str:
    with pytest.raises(kind) as caught:
        read_sessions(path, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"[{kind.code}]")
    return message


@pytest.mark.parametrize("name", ["trace.csv", "trace.parquet"])
def test_rows_in_any_order_make_the_same_trace(write_table, name):
    path = write_table(name, client_id=["b", "a", "b"], start_s=[50, 5, 10], end_s=[60.5, 15, 20])
    trace = read_sessions(path)
    assert [trace.client_id(i) for i in range(len(trace))] == ["a", "b"]
    assert trace.offsets.tolist() == [0, 1, 3]
    assert trace.start_s.tolist() == [5, 10, 50]
    assert trace.end_s.tolist() == [15, 20, 60.5]


def test_numeric_clients_are_in_numeric_order(write_table):
    trace = read_sessions(write_table(client_id=[10, 9], start_s=[0, 0], end_s=[1, 2]))
    assert [trace.client_id(i) for i in range(2)] == ["9", "10"]
    assert trace.end_s.tolist() == [2, 1]


def test_device_models_are_read_where_the_file_names_them(write_table):
    trace = read_sessions(
        write_table(
            client_id=[2, 1, 2],
            start_s=[0, 0, 9],
            end_s=[1, 1, 10],
            device_model=["slow", "fast", "slow"],
        )
    )
    assert trace.device_models == ("fast", "slow")
    assert trace.device_model.tolist() == [0, 1]


def test_two_device_models_of_one_client_are_refused(write_table):
    path = write_table(
        client_id=[2, 2], start_s=[0, 5], end_s=[1, 6], device_model=["slow", "fast"]
    )
    assert "client 2 has another device_model in another row" in refusal(InvalidSpan, path)


def test_overlapping_spans_are_refused_with_client_and_rows(write_table):
    path = write_table(client_id=[7, 3, 7], start_s=[100, 0, 50], end_s=[200, 9, 101])
    message = refusal(OverlappingSpans, path)
    assert "client 7: rows 3 (50 to 101 s) and 1 (100 to 200 s) overlap" in message
    assert "availability.merge: true" in message


def test_overlapping_spans_are_joined_if_asked(write_table):
    path = write_table(client_id=[7, 7, 7], start_s=[100, 50, 60], end_s=[110, 200, 70])
    trace = read_sessions(path, SpanRules(merge=True))
    assert (trace.start_s.tolist(), trace.end_s.tolist()) == ([50], [200])
    assert trace.repairs.joined == 2


def test_touching_spans_are_one_window(write_table):
    trace = read_sessions(write_table(client_id=[7, 7], start_s=[10, 20], end_s=[20, 30]))
    assert (trace.start_s.tolist(), trace.end_s.tolist()) == ([10], [30])


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (-1.0, 5.0, "row 2: client 4 starts at -1 s, before the trace begins"),
        (9.0, 5.0, "row 2: client 4 ends at 5 s, before it starts at 9 s"),
        (float("nan"), 5.0, "row 2: start_s is nan, which is no finite number"),
        (1.0, float("inf"), "row 2: end_s is inf, which is no finite number"),
        (None, 5.0, "row 2: start_s is empty"),
        (1.0, 1e12, "row 2: client 4 ends at 1e+12 s, beyond 136 years"),
    ],
)
def test_impossible_spans_are_refused_with_row_and_reason(write_table, start, end, said):
    path = write_table(client_id=[4, 4], start_s=[10.0, start], end_s=[11.0, end])
    assert said in refusal(InvalidSpan, path)


def test_times_that_are_no_numbers_are_refused(write_table):
    path = write_table(client_id=[4], start_s=["noon"], end_s=[11.0])
    assert "column start_s holds string, not numbers" in refusal(InvalidSpan, path)


def test_a_csv_column_without_a_value_is_refused_at_its_first_row(tmp_path):
    path = tmp_path / "sessions.csv"
    path.write_text("client_id,start_s,end_s\n4,nan,11\n5,,12\n")
    assert "row 1: start_s is empty; fill it in (1 more rows like it)" in refusal(InvalidSpan, path)


def test_a_missing_client_id_is_refused(write_table):
    path = write_table(client_id=["a", None], start_s=[0, 1], end_s=[1, 2])
    assert "row 2: client_id is empty" in refusal(InvalidSpan, path)


def test_more_rows_like_it_are_counted(write_table):
    path = write_table(client_id=[4, 4, 5], start_s=[-1, -2, -3], end_s=[1, 1, 1])
    assert "(2 more rows like it)" in refusal(InvalidSpan, path)


def test_a_column_that_is_not_there_is_named_with_its_neighbours(write_table):
    path = write_table(client_id=[4], start=[0], end_s=[1])
    assert "there is no column 'start_s' (did you mean start" in refusal(MissingColumn, path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "none.parquet" in refusal(UnreadableDataFile, tmp_path / "none.parquet")


def test_spans_beyond_the_cap_are_cut_or_dropped(write_table):
    path = write_table(client_id=[1, 2], start_s=[0, 100], end_s=[90_000, 200])
    cut = read_sessions(path, SpanRules(max_span_s=86_400))
    assert (cut.end_s.tolist(), cut.repairs.cut) == ([86_400, 200], 1)
    dropped = read_sessions(path, SpanRules(max_span_s=86_400, longer="drop"))
    assert (dropped.end_s.tolist(), dropped.repairs.dropped, len(dropped)) == ([200], 1, 2)


def test_repairs_that_change_who_is_there_are_told(write_table):
    path = write_table(client_id=[1, 1, 2], start_s=[0, 90, 5], end_s=[80, 99, 5])
    told = repairs_in_words(read_sessions(path, SpanRules(max_span_s=10)).repairs)
    assert told == [
        "availability: 1 of 3 spans is longer than max_span_s and cut",
        "availability: 1 of 3 spans is empty and left out",
    ]


def test_a_span_past_the_repeat_is_refused(write_table):
    path = write_table(client_id=[1], start_s=[0], end_s=[90_000])
    message = refusal(InvalidSpan, path, SpanRules(repeat_every_s=86_400))
    assert "row 1: the span ends at 90000 s, after its trace repeats at 86400 s" in message


@pytest.mark.parametrize("period", [0.0, -5.0, 0.5])
def test_a_repeat_must_be_whole_seconds(write_table, period):
    path = write_table(client_id=[1], start_s=[0], end_s=[1], repeat_every_s=[period])
    assert "whole number of seconds" in refusal(InvalidSpan, path)
    plain = write_table(client_id=[1], start_s=[0], end_s=[1])
    refusal(InvalidSpan, plain, SpanRules(repeat_every_s=period))


def test_rows_are_chosen_by_column_value_and_keep_their_numbers(write_table):
    path = write_table(
        client_id=[1, 1, 2],
        start_s=[0, 0, -1],
        end_s=[10, 20, 5],
        criteria=["loose", "strict", "loose"],
    )
    assert read_sessions(path, only={"criteria": "strict"}).end_s.tolist() == [20]
    assert "row 3" in refusal(InvalidSpan, path, only={"criteria": "loose"})
    assert "no row has criteria = none" in refusal(EmptyDataFile, path, only={"criteria": "none"})


def test_dictionary_encoded_and_unsigned_columns_are_read(write_table):
    path = write_table(
        client_id=pa.array(["b", "a"]).dictionary_encode(),
        start_s=pa.array([1, 2], pa.uint32()),
        end_s=pa.array([3, 4], pa.int16()),
    )
    assert read_sessions(path).start_s.tolist() == [2, 1]
