"""Templates and what they may call. Everything a name contains is text: nothing is markup."""

import datetime as dt
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from feature_catalog.browsing import MeasuredPoint
from feature_catalog.lineage import LineageGraph
from feature_catalog.strict_yaml import dump_mapping
from flint.console.graph_drawing import drawn_graph
from flint.console.line_chart import line_chart
from flint.reports.markup import element
from flint.reports.wording import (
    printable,
    said_bytes,
    said_duration,
    said_number,
    said_share,
    shortened,
)

_LONG_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_NOTHING = "\N{EN DASH}"

SECTIONS = (
    ("/", "Overview"),
    ("/features", "Features"),
    ("/services", "Services"),
    ("/devices", "On a device"),
    ("/assets", "Assets"),
    ("/models", "Models"),
    ("/jobs", "Jobs"),
    ("/runs", "Dry-runs"),
    ("/datasets", "Data sets"),
    ("/audit", "Audit log"),
)


def rendered(template: str, data: Mapping[str, Any]) -> str:
    """A page as HTML."""
    return _environment().get_template(template).render(data)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flint.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(sections=SECTIONS, draw=_draw, chart=_chart)
    environment.filters.update(
        bytes=said_bytes,
        number=_number,
        share=said_share,
        duration=said_duration,
        when=_when,
        digest=_digest,
        short=lambda text, length=60: shortened(str(text), length),
        words=lambda name: str(name).replace("_", " "),
        told=_told,
        yaml=dump_mapping,
    )
    return environment


def _shown(value: object) -> object:
    """What is not there is a dash; what no HTML may contain is replaced."""
    if value is None:
        return _NOTHING
    return printable(value) if type(value) is str else value


def _number(value: float | None, digits: int = 4) -> str:
    return said_number(value, digits)


def _when(moment: dt.datetime | None) -> object:
    """A moment to the second, the same for every reader."""
    if moment is None:
        return _NOTHING
    utc = moment.astimezone(dt.UTC)
    text = utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup(element("time", text, datetime=utc.isoformat()))  # noqa: S704 - escaped there


def _told(value: object) -> str:
    """A recorded fact in words: lists as such, digests by their beginning."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_told(each) for each in value)
    return _LONG_DIGEST.sub(lambda found: found[0][:12], str(value))


def _digest(value: bytes | str | None) -> object:
    """The beginning of a digest; the whole one beside the pointer."""
    if value is None:
        return _NOTHING
    text = value.hex() if isinstance(value, bytes) else value
    return Markup(element("code", text[:12], title=text))  # noqa: S704 - escaped there


def _draw(graph: LineageGraph, links: Mapping[str, str]) -> Markup:
    return Markup(drawn_graph(graph, links))  # noqa: S704 - escaped there


def _chart(points: Sequence[MeasuredPoint], *, title: str, by_job: bool = False) -> Markup:
    """A metric by version: the model's numbers, or the job's own."""
    placed = [((p.job_version or 0) if by_job else p.number, p.metric) for p in points]
    x_name = "job's version" if by_job else "version"
    drawn = line_chart(placed, title=title, x_name=x_name, y_name="metric")
    return Markup(drawn)  # noqa: S704 - escaped there
