"""Device profiles from public benchmark scores, for phones nobody has measured the model on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from simulation.portable_math import Floats
from simulation.traces.device_profiles import InvalidDeviceProfile
from simulation.traces.trace_tables import TraceTable, read_trace_table


def profiles_from_scores(
    path: Path,
    *,
    reference_model: str,
    reference_s: float,
    score_column: str = "cpu_float_score",
    relative_stdev: float = 0.2,
) -> pa.Table:
    """Scale one measured phone to all phones of a score file (AI-Benchmark's ranking).

    ``mean_s = reference_s * (reference score / score)``: time is taken to be inversely proportional
    to the score. On-device training here runs on the CPU in float32, hence the column. It is a
    stand-in for a measurement: it carries a ranking over, not a model's memory behaviour.

    Args:
        path: Columns ``device_model`` and ``score_column``; optional ``trace_model_codes``
            (separated by commas), under which a phone is listed as well.
        reference_model: The phone that was measured; its row gives the reference score.
        reference_s: Its seconds per example.
        relative_stdev: Spread around the mean, as a share of it.

    Returns:
        Columns ``device_model, mean_s, stdev_s``, sorted by model: a file of device profiles. A
        model listed twice gets the mean of its scores.

    Raises:
        InvalidDeviceProfile: If a score is not positive or the reference is not listed.
    """
    table = read_trace_table(path, ["device_model", score_column], optional=["trace_model_codes"])
    scores = table.numbers(score_column, InvalidDeviceProfile)
    table.refuse(
        scores <= 0,
        lambda row: f"{score_column} is {scores[row]:g}; give a score above 0",
        InvalidDeviceProfile,
    )
    if not reference_s > 0 or not relative_stdev >= 0:
        raise InvalidDeviceProfile(
            f"{path}: reference_s is {reference_s:g} and relative_stdev {relative_stdev:g}; give "
            "seconds above 0 and a spread not below 0"
        )
    by_model = _scores_by_name(table, scores)
    if reference_model not in by_model:
        raise InvalidDeviceProfile(
            f"{path}: the reference {reference_model!r} is not among its device models; name one "
            "that is listed"
        )
    names = sorted(by_model)
    mean_score = np.array([np.mean(by_model[name]) for name in names])
    mean_s = reference_s * float(np.mean(by_model[reference_model])) / mean_score
    return pa.table({"device_model": names, "mean_s": mean_s, "stdev_s": relative_stdev * mean_s})


def _scores_by_name(table: TraceTable, scores: Floats) -> Mapping[str, list[float]]:
    names = table.texts("device_model", InvalidDeviceProfile).to_pylist()
    codes = (
        table.table["trace_model_codes"].to_pylist()
        if table.has("trace_model_codes")
        else [""] * len(names)
    )
    by_name: dict[str, list[float]] = {}
    for name, listed, score in zip(names, codes, scores.tolist(), strict=True):
        aliases = (listed or "").split(",")
        for each in {name, *(alias.strip() for alias in aliases)} - {""}:
            by_name.setdefault(each, []).append(score)
    return by_name
