"""What all pages have in common: a frame that fetches nothing, contents, cards, figures."""

from collections.abc import Sequence

from flint.reports.chart import Chart
from flint.reports.data_beside import data_beside
from flint.reports.markup import Html, element, joined
from flint.reports.style_sheet import style_sheet

# Nothing is fetched, and nothing in a name could be: browsers hold the page to it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def framed(title: str, body: Html) -> str:
    """A whole page that needs nothing but itself."""
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("title", title),
            element("style", Html(style_sheet())),
        ),
        element("body", element("main", body)),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def contents(links: Sequence[tuple[str, str]]) -> Html:
    """Links to the sections, ``(id, title)``."""
    return element(
        "nav", *(element("a", name, href=f"#{key}") for key, name in links), aria_label="Contents"
    )


def card(name: str, figure: str, beside: str) -> Html:
    """A key figure, and what stands below it; may be empty."""
    return element(
        "div",
        element("dt", name),
        element("dd", figure),
        element("dd", beside, class_="more") if beside else "",
        class_="card",
    )


def drawn(chart: Chart) -> Html:
    """A chart's figure and the numbers beside it; nothing where there is none."""
    if chart.svg is None:
        return Html("")
    return joined(
        element("figure", element("div", chart.svg, class_="drawing")),
        data_beside(chart.key, chart.data),
    )
