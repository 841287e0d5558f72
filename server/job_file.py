"""Reading a job file: strict YAML into a `Job`, or one sentence with the place and the mend."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from device_runtime.errors import FlintError
from modeling.zoo import MODELS
from server.job import Job
from server.strict_yaml import MAX_TEXT_BYTES, StrictYamlError, load_mapping


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
    ("feature_service",): "remove it; the evaluation data set's own features are used",
    ("participation", "device"): (
        "remove it; participation.state and participation.user are checked on the device"
    ),
    ("privacy", "secure_aggregation"): (
        "remove it only if the server may see single updates; they are summed in its memory"
    ),
    ("privacy", "differential_privacy"): (
        "remove it only if the model may be trained without differential privacy"
    ),
    ("privacy", "robustness", "max_share_per_host_app"): (
        "remove it; privacy.robustness.max_update_norm limits each single update"
    ),
    ("privacy", "robustness", "rule"): (
        "remove it; updates are combined by weighted mean, each limited by "
        "privacy.robustness.max_update_norm"
    ),
    ("budget",): "remove it; stop.max_updates and stop.max_hours bound a job",
}
_ENVIRONMENT_KEYS = (
    "dataset",
    "population",
    "check_in",
    "availability",
    "device_profiles",
    "device_population",
    "bandwidth",
    "executors",
    "trials",
)
_TYPE_NAMES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
}
_FORMS = {
    "name": 'a short name such as "ads-ctr": lower-case letters, digits, - and _, a letter first',
    "participation.state.allowed_hours": 'local hours such as "22:00-06:00"',
}
_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class _Problem:
    kind: type[JobFileError]
    key: str
    sentence: str


def load_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        JobFileError: Or a subclass; one sentence naming file, key, value and mend.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError as error:
        raise JobFileError(f"there is no job file {path}; give the path of a YAML file") from error
    except OSError as error:
        raise JobFileError(f"cannot read {path}: {error.strerror}; give a YAML file") from error
    if len(raw) > MAX_TEXT_BYTES:
        raise JobFileError(
            f"{path} is larger than {MAX_TEXT_BYTES} bytes, so it is no job file; "
            "give the YAML file of one job"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JobFileError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
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
    problems = [*_not_built(raw), *_unknown_model(raw)]
    job = None
    try:
        job = Job.model_validate(_without_not_built(raw), strict=True)
    except ValidationError as error:
        found = [_problem(raw, details) for details in error.errors(include_url=False)]
        # A slip of the pen in a key also makes the right key missing: say the cause first.
        problems += sorted(found, key=lambda problem: problem.kind is not UnknownJobKey)
    if problems:
        raise _as_error(source, problems)
    if job is None:
        raise RuntimeError("a job without problems was not built")
    return job


def _as_error(source: str, problems: Sequence[_Problem]) -> JobFileError:
    first = problems[0]
    others = list(dict.fromkeys(p.key for p in problems[1:] if p.key != first.key))
    also = f" Also to mend: {', '.join(others)}." if others else ""
    return first.kind(f"{source}: {first.sentence}{also}")


def _not_built(raw: Mapping[str, Any]) -> list[_Problem]:
    problems = []
    for keys, mend in _NOT_BUILT.items():
        found, value = _at(raw, keys)
        if found:
            key = ".".join(keys)
            problems.append(_refused(key, value, mend))
    found, mode = _at(raw, ("evaluation", "mode"))
    if found and mode == "federated":
        problems.append(_refused("evaluation.mode", mode, "use evaluation.mode: central"))
    return problems


def _refused(key: str, value: object, mend: str) -> _Problem:
    return _Problem(
        JobFeatureNotBuilt,
        key,
        f"{key} = {_shown(value)} asks for a feature that is not built yet; {mend}.",
    )


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
        f"model = {_shown(name)} is not a registered model{_did_you_mean(name, list(MODELS))}. "
        f"Registered models: {', '.join(sorted(MODELS))}."
    )
    return [_Problem(InvalidJobValue, "model", sentence)]


def _problem(raw: Mapping[str, Any], details: ErrorDetails) -> _Problem:
    keys, block = _locate(details["loc"])
    key = ".".join(_spelt(part) for part in keys)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _Problem(UnknownJobKey, key, _unknown_key(key, keys, block))
    if kind == "missing":
        return _Problem(InvalidJobValue, key, f"{key} is missing; add it.")
    if kind == "union_tag_not_found":
        return _Problem(
            InvalidJobValue,
            f"{key}.name",
            f"{key}.name is missing; add one of {', '.join(_tags(block))}.",
        )
    if kind == "union_tag_invalid":
        names = list(_tags(block))
        tag = str(context.get("tag"))
        sentence = (
            f"{key}.name = {_shown(tag)} is not known{_did_you_mean(tag, names)}; "
            f"use one of {', '.join(names)}."
        )
        return _Problem(InvalidJobValue, f"{key}.name", sentence)
    if kind == "value_error":
        said = str(context.get("error", details["msg"]))
        return _Problem(InvalidJobValue, key or "the job", f"{key + ': ' if key else ''}{said}.")
    _, value = _at(raw, keys)
    wanted = _FORMS.get(key) or _wanted(kind, details["msg"], context)
    near = ""
    if kind == "literal_error" and isinstance(value, str):
        near = _did_you_mean(value, [str(w).strip("'") for w in wanted.split(" or ")])
    return _Problem(
        InvalidJobValue, key, f"{key} = {_shown(value)} is not possible{near}; it must be {wanted}."
    )


def _wanted(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind in _TYPE_NAMES:
        return _TYPE_NAMES[kind]
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "a block of keys"
    if kind == "literal_error":
        return str(context["expected"]).replace(", ", " or ")
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _unknown_key(key: str, keys: Sequence[str], block: type[BaseModel] | None) -> str:
    if len(keys) == 1 and keys[0] in _ENVIRONMENT_KEYS:
        where = " (a job names its data as evaluation.dataset)" if keys[0] == "dataset" else ""
        return (
            f"{key} belongs to an environment file, which says what world a dry-run has, "
            f"not to a job{where}; remove it."
        )
    known = sorted(block.model_fields) if block is not None else []
    listed = f" Known keys: {', '.join(known)}." if known else ""
    return f"{key} is not a known key{_did_you_mean(keys[-1], known)}.{listed}"


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _locate(location: Sequence[int | str]) -> tuple[list[str], Any]:
    """Key path of a pydantic location, and the block (or union) that was being read there.

    In a union chosen by ``name``, pydantic puts the chosen name into the location; the file has no
    such key, so it is left out.
    """
    keys: list[str] = []
    block: Any = Job
    pending: Any = None
    for part in location:
        if pending is not None:
            block, pending = _tags(pending)[str(part)], None
            continue
        keys.append(str(part))
        field = block.model_fields.get(str(part)) if block is not None else None
        if field is None:
            continue
        choices = _blocks_in(field.annotation)
        if len(choices) > 1:
            pending = field.annotation
        elif choices:
            block = choices[0]
    return keys, block if pending is None else pending


def _blocks_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [block for part in get_args(annotation) for block in _blocks_in(part)]


def _tags(union: object) -> dict[str, type[BaseModel]]:
    """Choices of a union by their ``name``."""
    return {
        str(tag): block
        for block in _blocks_in(union)
        for tag in get_args(block.model_fields["name"].annotation)
    }


def _at(raw: Mapping[str, Any], keys: Sequence[str]) -> tuple[bool, Any]:
    value: Any = raw
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{_spelt(k)}: {_shown(v)}" for k, v in value.items()) + "}"
    else:
        text = repr(value)
    return _cut(text)


def _spelt(key: str) -> str:
    """A key as it can stand in a sentence."""
    return _cut(key if key.isprintable() and key.strip() == key != "" else repr(key))


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return text[: _MAX_SHOWN_CHARACTERS - 3] + "..."
