"""Reading a job file: strict YAML into a `Job`, or one sentence with the place and the mend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from device_runtime.errors import FlintError
from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text
from modeling.zoo import MODELS
from server.job import Job
from server.strict_blocks import (
    BlockProblem,
    also_to_mend,
    block_problems,
    did_you_mean,
    shown,
    value_at,
)


class JobFileError(FlintError):
    """The file cannot be read as a job file at all."""

    code = "FLN-1001"


class InvalidJobValue(JobFileError):
    """A key has an impossible value, or a required key is missing."""

    code = "FLN-1002"


class UnknownJobKey(JobFileError):
    """A key no job file has, most often a slip of the pen."""

    code = "FLN-1003"


class JobFeatureNotBuilt(JobFileError):
    """A known key whose feature does not exist yet; ignoring it would train something else."""

    code = "FLN-1004"


# Keys of design and documentation that come alive later, each with what to do until then. A job
# that asks for one is refused, never run without it.
_NOT_BUILT: Mapping[tuple[str, ...], str] = {
    ("privacy", "differential_privacy"): (
        "remove it only if the model may be trained without differential privacy"
    ),
    ("privacy", "robustness", "rule"): (
        "remove it; updates are combined by weighted mean, each limited by "
        "privacy.robustness.max_update_norm"
    ),
    ("budget", "device_hours"): "remove it; stop.max_updates and stop.max_hours bound a job",
}
_ENVIRONMENT_KEYS = (
    "dataset",
    "population",
    "check_in",
    "availability",
    "device_profiles",
    "device_population",
    "bandwidth",
    "dropout",
    "executors",
    "trials",
)
_MEASURED = ("participation", "device", "measured")
_FORMS = {
    "name": 'a short name such as "ads-ctr": lower-case letters, digits, - and _, a letter first',
    "participation.device.min_os_release": 'a month such as "2019-09"',
    "feature_service": 'the name of a feature service, such as "ads_ctr_v1" (`flint catalog list`)',
    "participation.state.allowed_hours": 'local hours such as "22:00-06:00"',
}


@dataclass(frozen=True, slots=True)
class _Problem:
    kind: type[JobFileError]
    problem: BlockProblem


def load_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        JobFileError: Or a subclass; one sentence naming file, key, value and mend.
    """
    try:
        text = read_text(path, what="job file")
    except StrictYamlError as error:
        raise JobFileError(str(error)) from error
    return parse_job(text, source=path.name)


def parse_job(text: str, *, source: str = "job.yaml") -> Job:
    """Check the text of a job file.

    Args:
        source: What the sentence calls the file.

    Raises:
        JobFileError: As `load_job`.
    """
    try:
        raw = load_mapping(text)
    except StrictYamlError as error:
        raise JobFileError(f"{source}: {error}; mend the YAML") from error
    problems = [*_not_built(raw), *_unknown_model(raw), *_measured_by_hand(raw)]
    job = None
    try:
        job = Job.model_validate(_without_not_built(raw), strict=True)
    except ValidationError as error:
        problems += [
            _Problem(UnknownJobKey if problem.unknown_key else InvalidJobValue, problem)
            for problem in block_problems(error, raw, Job, forms=_FORMS, foreign_key=_foreign_key)
        ]
    if problems:
        raise _as_error(source, problems)
    if job is None:
        raise RuntimeError("a job without problems was not built")
    return job


def _as_error(source: str, problems: Sequence[_Problem]) -> JobFileError:
    first = problems[0]
    also = also_to_mend([each.problem for each in problems])
    return first.kind(f"{source}: {first.problem.sentence}{also}")


def _not_built(raw: Mapping[str, Any]) -> list[_Problem]:
    problems = []
    for keys, mend in _NOT_BUILT.items():
        found, value = value_at(raw, keys)
        if found:
            key = ".".join(keys)
            problems.append(_refused(key, value, mend))
    found, mode = value_at(raw, ("evaluation", "mode"))
    if found and mode == "federated":
        problems.append(_refused("evaluation.mode", mode, "use evaluation.mode: central"))
    return problems


def _refused(key: str, value: object, mend: str) -> _Problem:
    sentence = f"{key} = {shown(value)} asks for a feature that is not built yet; {mend}."
    return _Problem(JobFeatureNotBuilt, BlockProblem(key, sentence))


def _without_not_built(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Copy without the keys already complained of, so they are not called unknown as well."""

    def copy(value: object, path: tuple[str, ...]) -> object:
        if not isinstance(value, dict):
            return value
        return {k: copy(v, (*path, k)) for k, v in value.items() if (*path, k) not in _NOT_BUILT}

    cleaned = {key: copy(value, (key,)) for key, value in raw.items() if (key,) not in _NOT_BUILT}
    evaluation = cleaned.get("evaluation")
    if isinstance(evaluation, dict) and evaluation.get("mode") == "federated":
        del evaluation["mode"]
    return cleaned


def _unknown_model(raw: Mapping[str, Any]) -> list[_Problem]:
    name = raw.get("model")
    if not isinstance(name, str) or name in MODELS:
        return []
    sentence = (
        f"model = {shown(name)} is not a registered model{did_you_mean(name, list(MODELS))}. "
        f"Registered models: {', '.join(sorted(MODELS))}."
    )
    return [_Problem(InvalidJobValue, BlockProblem("model", sentence))]


def _measured_by_hand(raw: Mapping[str, Any]) -> list[_Problem]:
    found, _ = value_at(raw, _MEASURED)
    if not found:
        return []
    key = ".".join(_MEASURED)
    sentence = (
        f"{key} is written by FLINT from the catalog's benchmarks when the job is submitted; "
        "remove it, and measure devices with `flint bench run`."
    )
    return [_Problem(UnknownJobKey, BlockProblem(key, sentence, unknown_key=True))]


def _foreign_key(keys: Sequence[str]) -> str | None:
    """Say where a key of an environment file belongs."""
    if len(keys) != 1 or keys[0] not in _ENVIRONMENT_KEYS:
        return None
    where = " (a job names its data as evaluation.dataset)" if keys[0] == "dataset" else ""
    return (
        f"{keys[0]} belongs to an environment file, which says what world a dry-run has, "
        f"not to a job{where}; remove it."
    )
