"""The numbers beside a chart: a table where they are few, a CSV file within the page always."""

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence

from flint.reports.markup import Html, element
from flint.reports.wording import printable, said_number

_TABLE_ROWS = 40
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(columns: Mapping[str, Sequence[object]]) -> str:
    """Columns as CSV; what is unknown is empty, and no text begins a formula."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return written.getvalue()


def data_beside(key: str, columns: Mapping[str, Sequence[object]]) -> Html:
    """A folded part with the numbers of the chart ``key``."""
    if not columns:
        return Html("")
    rows = list(zip(*columns.values(), strict=True))
    encoded = base64.b64encode(csv_text(columns).encode()).decode()
    link = element(
        "a",
        f"{key}.csv",
        href=f"data:text/csv;charset=utf-8;base64,{encoded}",
        download=f"{key}.csv",
    )
    told = element("p", f"{len(rows):,} rows: ", link)
    table = _table(list(columns), rows) if len(rows) <= _TABLE_ROWS else ""
    return element("details", element("summary", "Numbers of this figure"), told, table)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    head = element("tr", *(element("th", name, scope="col") for name in names))
    body = [element("tr", *(element("td", _said(value)) for value in row)) for row in rows]
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")


def _said(value: object) -> str:
    if value is None:
        return said_number(None)
    return said_number(float(value), 5) if isinstance(value, int | float) else str(value)


def _cell(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        # Virtual seconds to the microsecond, shares and losses to nine digits.
        return int(value) if value.is_integer() else float(f"{value:.9g}")
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return value
