"""The fuzzing of `benchmarks/fuzz_parsers.py`: a little of it, and that it finds what it is for."""

import importlib
import random
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fuzz_parsers():
    folder = str(Path(__file__).parents[3] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("fuzz_parsers")
    finally:
        sys.path.remove(folder)


def test_some_inputs_through_every_parser_end_as_they_may(fuzz_parsers):
    for name, target in fuzz_parsers.TARGETS.items():
        result = fuzz_parsers.fuzz(name, target, inputs=60, seed=7, limit_s=5.0)
        assert sum(result["ends"].values()) == 60


def test_a_run_can_be_repeated(fuzz_parsers):
    def draw_inputs() -> list[bytes]:
        draw = random.Random(5)
        return [fuzz_parsers.mutate(b"good input", (b"other",), draw) for _ in range(50)]

    inputs = draw_inputs()
    assert inputs == draw_inputs()
    assert len(set(inputs)) > 40


def test_another_error_ends_the_run_with_its_input(fuzz_parsers):
    def parse(data: bytes) -> None:
        if data != b"good":
            raise KeyError(data)

    target = fuzz_parsers.Target(parse, (b"good",), (ValueError,))
    with pytest.raises(SystemExit, match=r"faulty: KeyError: .* for [0-9a-f]*$"):
        fuzz_parsers.fuzz("faulty", target, inputs=50, seed=1, limit_s=5.0)


def test_an_input_that_takes_too_long_ends_the_run(fuzz_parsers):
    target = fuzz_parsers.Target(lambda _: sum(range(10_000)), (b"good",), ())
    with pytest.raises(SystemExit, match="of processor time for"):
        fuzz_parsers.fuzz("slow", target, inputs=5, seed=1, limit_s=1e-7)


def test_an_input_that_never_ends_ends_the_run(fuzz_parsers, monkeypatch):
    monkeypatch.setattr(fuzz_parsers, "_ENDLESS_S", 0.05)

    def parse(data: bytes) -> None:
        while data != b"good":
            pass

    target = fuzz_parsers.Target(parse, (b"good",), ())
    with pytest.raises(SystemExit, match=r"endless: TookTooLong: .* for "):
        fuzz_parsers.fuzz("endless", target, inputs=5, seed=1, limit_s=5.0)
