"""The fuzzing of `benchmarks/fuzz_parsers.py`: a little of it, and that it finds what it is for."""

import importlib
import random
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmarks():
    """Scripts beside each other, and no package: by name."""
    folder = str(Path(__file__).parents[3] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def inputs(benchmarks):
    return benchmarks("mutated_inputs")


def test_some_inputs_through_every_parser_end_as_they_may(benchmarks, inputs):
    for name, target in benchmarks("fuzz_parsers").TARGETS.items():
        result = inputs.fuzz(name, target, inputs=60, seed=7, limit_s=5.0)
        assert sum(result["ends"].values()) == 60


def test_a_run_can_be_repeated(inputs):
    def draw_50() -> list[bytes]:
        draw = random.Random(5)
        return [inputs.mutate(b"good input", (b"other",), draw) for _ in range(50)]

    drawn = draw_50()
    assert drawn == draw_50()
    assert len(set(drawn)) > 40


def test_another_error_ends_the_run_with_its_input(inputs):
    def parse(data: bytes) -> None:
        if data != b"good":
            raise KeyError(data)

    target = inputs.Target(parse, (b"good",), (ValueError,))
    with pytest.raises(SystemExit, match=r"faulty: KeyError: .* for [0-9a-f]*$"):
        inputs.fuzz("faulty", target, inputs=50, seed=1, limit_s=5.0)


def test_an_input_that_takes_too_long_ends_the_run(inputs):
    target = inputs.Target(lambda _: sum(range(10_000)), (b"good",), ())
    with pytest.raises(SystemExit, match="of processor time for"):
        inputs.fuzz("slow", target, inputs=5, seed=1, limit_s=1e-7)


def test_an_input_that_never_ends_ends_the_run(inputs, monkeypatch):
    monkeypatch.setattr(inputs, "_ENDLESS_S", 0.05)

    def parse(data: bytes) -> None:
        while data != b"good":
            pass

    target = inputs.Target(parse, (b"good",), ())
    with pytest.raises(SystemExit, match=r"endless: TookTooLong: .* for "):
        inputs.fuzz("endless", target, inputs=5, seed=1, limit_s=5.0)
