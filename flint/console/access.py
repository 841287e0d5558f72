"""Who may read the console's pages, and what a browser may do with them.

There is no login, so what guards the pages is that nobody else reaches them: the console listens on
loopback, and answers only where it was asked for by a name that cannot have been made to point here
(DNS rebinding: a page of another site whose name suddenly means 127.0.0.1).
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing is fetched from elsewhere and no script but ours runs, whatever a name contains."""

_METHODS = ("GET", "HEAD")
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_trusted_host(header: str | None, names: Collection[str], *, only_loopback: bool) -> bool:
    """Whether a ``Host`` header is one that nobody can have made point here.

    An address cannot be rebound, a name can. Ports are not looked at: behind a tunnel they differ.

    Args:
        names: Names that are ours.
        only_loopback: Whether other machines do not reach us anyway.

    >>> is_trusted_host("localhost:9520", [], only_loopback=True)
    True
    >>> is_trusted_host("evil.example:9520", [], only_loopback=True)
    False
    """
    try:
        host = urlsplit(f"//{header}").hostname if header else None
    except ValueError:
        return False
    if host is None or header is None or set(header) & set("/?#@\\ "):
        return False
    if host == "localhost" or host in {name.lower() for name in names}:
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or not only_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Guarded:
    """An application that only reads, for trusted hosts, with headers that hold browsers to it.

    Args:
        app: What answers.
        names: As `is_trusted_host`.
        only_loopback: As `is_trusted_host`.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], *, only_loopback: bool) -> None:
        self._app = app
        self._names = names
        self._only_loopback = only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # no websockets, and nothing to do at start and end
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._choose(scope)(scope, receive, send_guarded)

    def _choose(self, scope: Scope) -> ASGIApp:
        hosts = Headers(scope=scope).getlist("host")
        host = hosts[0] if len(hosts) == 1 else None
        if not is_trusted_host(host, self._names, only_loopback=self._only_loopback):
            return PlainTextResponse(
                "This console is not known by the name it was asked for. Open it by its address, "
                "or start it with --hostname NAME.\n",
                status_code=421,
            )
        if scope["method"] not in _METHODS:
            allowed = {"Allow": ", ".join(_METHODS)}
            told = "The console only shows things; changes are made by flint commands.\n"
            return PlainTextResponse(told, status_code=405, headers=allowed)
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            return PlainTextResponse("No name in the catalog has this character.\n", 400)
        return self._app
