"""What commands print: results on stdout, everything said on the way on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


def print_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    print(json.dumps(value, default=_plain, allow_nan=False), flush=True)


def note(sentence: str) -> None:
    """Something the user should know while a command works; on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table on stdout, or the sentence ``empty`` when it has no rows."""
    if not rows:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # To a file or a pipe, lines are never cut to a terminal's width.
    width = None if sys.stdout.isatty() else 200
    # Cells are names of users' files, models and devices: never markup.
    Console(width=width, highlight=False, emoji=False, markup=False).print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One ``name  value`` line each on stdout."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print(f"{name:<{width}}  {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "-"
    return str(value)


def _plain(value: Any) -> object:  # noqa: ANN401 - json hands on whatever it does not know
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
