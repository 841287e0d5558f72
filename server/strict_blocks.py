"""What is wrong with a strict file's blocks, each as one sentence: key, value found, mend.

Job and environment files are pydantic models that forbid unknown keys; this renders pydantic's
complaints. A block of several kinds is told by its key ``name``.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_TYPE_NAMES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
}
_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class BlockProblem:
    """One thing to mend in a file.

    Attributes:
        key: Path of the key, e.g. ``strategy.buffer_size``; empty for the file as a whole.
        sentence: What, where and how to mend it.
        unknown_key: Whether the file has a key that is not known.
    """

    key: str
    sentence: str
    unknown_key: bool = False


def block_problems(
    error: ValidationError,
    raw: Mapping[str, Any],
    root: type[BaseModel],
    *,
    forms: Mapping[str, str],
    foreign_key: Callable[[Sequence[str]], str | None],
) -> list[BlockProblem]:
    """Render all complaints, unknown keys first: a slip in a key also makes the right one missing.

    Args:
        error: From validating ``raw`` as ``root``.
        forms: What a key's value looks like, by key path, where pydantic's words do not help.
        foreign_key: Says where an unknown key belongs if it is one of another kind of file.
    """
    found = [
        _problem(raw, root, details, forms, foreign_key)
        for details in error.errors(include_url=False)
    ]
    return sorted(found, key=lambda problem: not problem.unknown_key)


def also_to_mend(problems: Sequence[BlockProblem]) -> str:
    """The keys of all problems but the first, as a sentence to add; empty if there are none."""
    others = list(dict.fromkeys(p.key for p in problems[1:] if p.key != problems[0].key))
    return f" Also to mend: {', '.join(key or 'the rest' for key in others)}." if others else ""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest known word, in brackets with a space before; empty if none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def value_at(raw: Mapping[str, Any], keys: Sequence[str]) -> tuple[bool, Any]:
    """Whether there is a value at a path of keys, and the value."""
    value: Any = raw
    for key in keys:
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
            continue
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


def shown(value: object) -> str:
    """A value of the file as it can stand in a sentence."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{_spelt(k)}: {shown(v)}" for k, v in value.items()) + "}"
    else:
        text = repr(value)
    return _cut(text)


def _problem(
    raw: Mapping[str, Any],
    root: type[BaseModel],
    details: ErrorDetails,
    forms: Mapping[str, str],
    foreign_key: Callable[[Sequence[str]], str | None],
) -> BlockProblem:
    keys, block = _locate(root, details["loc"])
    key = ".".join(_spelt(part) for part in keys)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        sentence = foreign_key(keys) or _unknown_key(key, keys, block)
        return BlockProblem(key, sentence, unknown_key=True)
    if kind == "missing":
        return BlockProblem(key, f"{key} is missing; add it.")
    if kind == "union_tag_not_found":
        sentence = f"{key}.name is missing; add one of {', '.join(_tags(block))}."
        return BlockProblem(f"{key}.name", sentence)
    if kind == "union_tag_invalid":
        names = list(_tags(block))
        tag = str(context.get("tag"))
        sentence = (
            f"{key}.name = {shown(tag)} is not known{did_you_mean(tag, names)}; "
            f"use one of {', '.join(names)}."
        )
        return BlockProblem(f"{key}.name", sentence)
    if kind == "value_error":
        said = str(context.get("error", details["msg"]))
        return BlockProblem(key, f"{key + ': ' if key else ''}{said}.")
    _, value = value_at(raw, keys)
    wanted = forms.get(key) or _wanted(kind, details["msg"], context)
    near = ""
    if kind == "literal_error" and isinstance(value, str):
        near = did_you_mean(value, [str(w).strip("'") for w in wanted.split(" or ")])
    return BlockProblem(key, f"{key} = {shown(value)} is not possible{near}; it must be {wanted}.")


def _wanted(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind in _TYPE_NAMES:
        return _TYPE_NAMES[kind]
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "a block of keys"
    if kind == "literal_error":
        return str(context["expected"]).replace(", ", " or ")
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _keys_of(block: type[BaseModel]) -> Iterator[str]:
    """What a user may write in a block; some values are filled in later."""
    for key, field in block.model_fields.items():
        extra = field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get("written_at_submission")):
            yield key


def _unknown_key(key: str, keys: Sequence[str], block: type[BaseModel] | None) -> str:
    known = sorted(_keys_of(block)) if block is not None else []
    listed = f" Known keys: {', '.join(known)}." if known else ""
    return f"{key} is not a known key{did_you_mean(keys[-1], known)}.{listed}"


def _locate(root: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], Any]:
    """Key path of a pydantic location, and the block (or union) that was being read there.

    In a union chosen by ``name``, pydantic puts the chosen name into the location; the file has no
    such key, so it is left out.
    """
    keys: list[str] = []
    block: Any = root
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


def _spelt(key: str) -> str:
    """A key as it can stand in a sentence."""
    return _cut(key if key.isprintable() and key.strip() == key != "" else repr(key))


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return text[: _MAX_SHOWN_CHARACTERS - 3] + "..."
