"""HTML that is escaped unless it was made here: names in a report are whatever users wrote."""

import html

from flint.reports.wording import printable

_VOID = {"br", "hr", "meta", "col"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(content: object) -> Html:
    """Markup for any value; only `Html` is taken as it is.

    >>> escaped("a < b")
    'a &lt; b'
    """
    return content if isinstance(content, Html) else Html(html.escape(printable(str(content))))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """One element; whatever is not `Html` in it is escaped, attributes always.

    An underscore in an attribute's name is a hyphen, one at its end is dropped (``class_``);
    attributes that are None are left out, True stands alone.

    >>> element("p", "a & b", class_="note")
    '<p class="note">a &amp; b</p>'
    """
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(printable(str(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{''.join(escaped(part) for part in content)}</{tag}>")


def joined(*parts: object) -> Html:
    """Parts one after the other."""
    return Html("\n".join(escaped(part) for part in parts))
