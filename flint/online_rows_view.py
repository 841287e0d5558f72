"""How online features are asked for on a command line, and shown."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from feature_catalog.definitions import Dtype
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.online.moments import moment_of
from feature_catalog.online.serving import OnlineResponse

_WORDS = {"true": True, "false": False}


def given_columns(definitions: DefinitionSet, pairs: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of entity rows from ``name=value`` pairs; a name given once holds for all rows.

    Raises:
        BadParameter: If a pair has no such form, a name is not known, or a value is not of its
            type.
    """
    types = _known_types(definitions)
    columns: dict[str, list[Any]] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise typer.BadParameter(
                f"{pair!r} is not NAME=VALUE, as in user_id=user-001", param_hint="--key"
            )
        if name not in types:
            known = sorted(types)
            raise typer.BadParameter(
                f"{name!r} is no join key and no value that devices record"
                f"{did_you_mean(name, known)}; there are {listed(known)}",
                param_hint="--key",
            )
        columns.setdefault(name, []).append(_value(name, text, types[name]))
    rows = max(map(len, columns.values()), default=0)
    for name, values in columns.items():
        if len(values) not in (1, rows):
            raise typer.BadParameter(
                f"{name} is given {len(values)} times and another key {rows} times; give it once "
                "for all rows, or for each",
                param_hint="--key",
            )
    return {name: values * rows if len(values) == 1 else values for name, values in columns.items()}


def describe_rows(found: OnlineResponse) -> list[dict[str, Any]]:
    """A response as JSON: for each row its keys, and each feature's value and status."""
    rows = range(len(next(iter(found.entities.values()), [])))
    return [
        {
            "entity": {name: values[row] for name, values in found.entities.items()},
            "features": {
                name: {
                    "value": _finite(found.values[name][row]),
                    "status": str(found.statuses[name][row]),
                    "event_ts": _since(found, name, row),
                }
                for name in found.names
            },
        }
        for row in rows
    ]


def row_lines(found: OnlineResponse) -> Iterator[tuple[object, ...]]:
    """A response as lines of a table: keys, feature, value, status, true since."""
    for row in range(len(next(iter(found.entities.values()), []))):
        keys = [values[row] for values in found.entities.values()]
        for name in found.names:
            status = str(found.statuses[name][row])
            yield (*keys, name, found.values[name][row], status, _since(found, name, row))


def _finite(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A value as JSON has it, which knows no infinity."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _since(found: OnlineResponse, name: str, row: int) -> object:
    us = found.event_us[name][row]
    return None if us is None else moment_of(us)


def _known_types(definitions: DefinitionSet) -> dict[str, Dtype]:
    types: dict[str, Dtype] = {}
    for view_name in definitions.names("feature_view"):
        view = definitions.view(view_name)
        if view is not None and view.is_on_device:
            for field in view.schema:
                types[f"{view.name}__{field.name}"] = field.dtype
                types[field.name] = field.dtype
    for name in definitions.names("entity"):
        entity = definitions.entity(name)
        if entity is not None:
            types.update(dict.fromkeys(entity.join_keys, entity.dtype))
    return types


def _value(name: str, text: str, dtype: Dtype) -> Any:  # noqa: ANN401
    try:
        match dtype:
            case Dtype.STRING:
                return text
            case Dtype.BOOL:
                return _WORDS[text]
            case Dtype.INT32 | Dtype.INT64:
                return int(text)
            case _:
                return float(text)
    except (ValueError, KeyError):
        raise typer.BadParameter(
            f"{name}={text!r} is no {dtype}; give one", param_hint="--key"
        ) from None
