"""Numbers as people read them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_NONE = "\N{EN DASH}"
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_NAME_LENGTH = 40
_ACRONYMS = {"auprc", "auc", "auroc", "ndcg", "map", "mrr", "mae", "mse", "rmse"}
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0

OUTCOMES = ("succeeded", "interrupted", "stale", "over_committed", "failed", "rejected")
"""How a task can end, in the order in which reports show it."""


def said_number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, thousands grouped, never in powers of ten.

    >>> said_number(1234567), said_number(0.04567), said_number(None)
    ('1,234,567', '0.0457', '\N{EN DASH}')
    """
    if value is None or not math.isfinite(value):
        return _NONE
    if value == 0 or float(value).is_integer():
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 8)}f}"


def said_share(value: float | None) -> str:
    """A share in per cent; what is little but not nothing never reads as 0.

    >>> said_share(0.1234), said_share(0.00012), said_share(0.0)
    ('12.3\N{NO-BREAK SPACE}%', '< 0.1\N{NO-BREAK SPACE}%', '0\N{NO-BREAK SPACE}%')
    """
    if value is None or not math.isfinite(value):
        return _NONE
    if 0 < value < 0.001:
        return "< 0.1\N{NO-BREAK SPACE}%"
    if 0.999 < value < 1:
        return "> 99.9\N{NO-BREAK SPACE}%"
    percent = 100 * value
    return (
        f"{percent:.0f}\N{NO-BREAK SPACE}%"
        if percent % 1 == 0
        else f"{percent:.1f}\N{NO-BREAK SPACE}%"
    )


def said_bytes(value: float | None) -> str:
    """Bytes in decimal units.

    >>> said_bytes(1_234_000), said_bytes(12)
    ('1.23\N{NO-BREAK SPACE}MB', '12\N{NO-BREAK SPACE}B')
    """
    if value is None or not math.isfinite(value):
        return _NONE
    unit = 0
    while abs(value) >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g}\N{NO-BREAK SPACE}{_BYTE_UNITS[unit]}"


def said_duration(seconds: float | None) -> str:
    """A span of time in the unit in which it is read.

    >>> said_duration(90), said_duration(7200), said_duration(0.25)
    ('90\N{NO-BREAK SPACE}s', '2\N{NO-BREAK SPACE}h', '0.25\N{NO-BREAK SPACE}s')
    """
    if seconds is None or not math.isfinite(seconds):
        return _NONE
    unit = unit_of(seconds, least=2.0)
    return f"{seconds / unit.seconds:.3g}\N{NO-BREAK SPACE}{unit.symbol}"


def said_outcome(outcome: str) -> str:
    """An outcome's name.

    >>> said_outcome("over_committed")
    'over-committed'
    """
    return outcome.replace("_", "-")


def printable(text: str) -> str:
    """Text without the characters that neither HTML nor XML may contain."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def said_metric_name(name: str | None) -> str:
    """A metric's name in a sentence.

    >>> said_metric_name("auprc"), said_metric_name(None)
    ('AUPRC', 'metric')
    """
    if not name:
        return "metric"
    return name.upper() if name in _ACRONYMS else shortened(printable(name), _NAME_LENGTH)


def sentence(text: str) -> str:
    """A sentence begins with a capital.

    >>> sentence("no task was started.")
    'No task was started.'
    """
    return text[:1].upper() + text[1:]


def said_list(parts: Sequence[str]) -> str:
    """Parts as in a sentence.

    >>> said_list(["a", "b", "c"])
    'a, b and c'
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters of a text.

    >>> shortened("a long name", 6)
    'a lon…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """A unit of virtual time."""

    name: str
    symbol: str
    seconds: float


_UNITS = (
    TimeUnit("days", "d", _DAY_S),
    TimeUnit("hours", "h", _HOUR_S),
    TimeUnit("minutes", "min", _MINUTE_S),
    TimeUnit("seconds", "s", 1.0),
)


def unit_of(span_s: float, *, least: float = 4.0) -> TimeUnit:
    """The largest unit of which a span has at least ``least``, else seconds.

    >>> unit_of(3 * 86400).name
    'hours'
    """
    return next((unit for unit in _UNITS if span_s >= least * unit.seconds), _UNITS[-1])
