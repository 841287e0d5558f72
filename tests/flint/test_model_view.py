from dataclasses import replace

import pytest

from flint.model_view import described, sentences, shown, too_large
from modeling.model_check import ModelCheck
from modeling.model_sizes import ModelSizes
from modeling.zoo import TEXT_CNN


@pytest.fixture
def check() -> ModelCheck:
    sizes = ModelSizes(389_589, 2_300_000, 10_798_600, 3_116_712)
    return ModelCheck(
        origin="torch",
        spec=TEXT_CNN,
        sizes=sizes,
        operators=("GATHER", "MUL"),
        custom_operators=(),
        first_loss=0.7,
        last_loss=0.5,
        learning_steps=30,
        max_difference=3e-8,
        tolerance=1e-5,
        parity_steps=5,
    )


def test_a_fit_model_is_told_without_complaint(check):
    assert sentences(check) == []
    lines = shown(check)
    assert lines["converts"] == "yes: 2 builtin operators, no others"
    assert lines["parameters"] == "389,589 trained, 2,300,000 frozen"
    assert (lines["storage"], lines["size class"]) == ("10.8 MB", "too large")
    assert described(check)["network_bytes"] == 3_116_712


def test_the_verdict_names_what_is_wrong(check):
    bad = replace(check, last_loss=9.0, max_difference=float("nan"), custom_operators=("FlexErf",))
    said = " ".join(sentences(bad))
    assert "phones do not have FlexErf" in said
    assert "the loss went from 0.7 to 9" in said
    assert "device and torch differ by nan" in said
    assert described(bad)["max_difference"] is None
    assert shown(bad)["trains"].startswith("no: loss 0.7 -> 9")


def test_a_file_larger_than_an_app_takes_is_told_by_how_much(check):
    (said,) = too_large(check, "first-party app")
    assert "10.8 MB, and a first-party app takes less than 10 MB; make the largest table" in said
    small = replace(check, sizes=replace(check.sizes, storage_bytes=9_999_999))
    assert too_large(small, "first-party app") == []
    assert len(too_large(small, "third-party SDK")) == 1
