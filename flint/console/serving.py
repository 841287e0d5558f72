"""From the command to a console that answers, and to its end."""

import contextlib
import errno
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from flint.catalog_session import open_catalog
from flint.console.access import is_loopback
from flint.console.errors import OpenConsole
from flint.extras import require
from server.operations.ports import PortInUse, UnusableAddress, join_address

if TYPE_CHECKING:
    import uvicorn

DEFAULT_PORT = 9520
_BACKLOG = 64
_MOST_CONNECTIONS = 64
_STOP_WITHIN_S = 2
_BROWSER_WAIT_S = 10.0


def serve_console(
    home: Path,
    *,
    host: str,
    port: int,
    hostnames: Collection[str] = (),
    let_others_read: bool = False,
    open_browser: bool = False,
    on_listening: Callable[[str], None],
) -> None:
    """Serve the console of a data directory until SIGINT or SIGTERM.

    Args:
        port: 0 picks a free one.
        hostnames: Names it may be asked for by, beside this machine's addresses.
        let_others_read: Whether other machines may be let in.
        on_listening: Told the address to open, once it is served.

    Raises:
        MissingExtra: If the console's packages are not installed.
        OpenConsole: If other machines would be let in unasked.
        PortInUse: If another program listens on the port.
        UnusableAddress: If this machine has no such address.
        FlintError: As `open_catalog`.
    """
    for package in ("fastapi", "jinja2", "uvicorn"):
        require(package, purpose="the console")
    only_loopback = is_loopback(host)
    if not only_loopback and not let_others_read:
        raise OpenConsole(
            f"--host {host} lets every machine that reaches it read the catalog, without a login "
            "and unencrypted: definitions, jobs, metrics, numbers of devices, the audit log. Add "
            "--let-others-read if that is meant; else tunnel: ssh -L "
            f"{port or DEFAULT_PORT}:localhost:{port or DEFAULT_PORT} THIS-MACHINE"
        )
    import uvicorn

    from flint.console.application import make_application

    with _listening(host, port) as listener, open_catalog(home, read_only=True) as catalog:
        bound = int(listener.getsockname()[1])
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        url = f"http://{join_address(shown, bound)}/"
        server = uvicorn.Server(
            uvicorn.Config(
                make_application(catalog, home, hostnames, only_loopback=only_loopback),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_STOP_WITHIN_S,
                proxy_headers=False,
            )
        )
        announce = threading.Thread(
            target=_announce, args=(server, url, open_browser, on_listening), daemon=True
        )
        announce.start()
        with contextlib.suppress(KeyboardInterrupt):  # how a console is meant to end
            server.run(sockets=[listener])


def _announce(
    server: "uvicorn.Server", url: str, open_browser: bool, on_listening: Callable[[str], None]
) -> None:
    deadline_s = time.monotonic() + _BROWSER_WAIT_S
    while not server.started and time.monotonic() < deadline_s:
        time.sleep(0.02)
    if server.started:
        on_listening(url)
        if open_browser:
            webbrowser.open(url)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that a port that is taken is told before all else."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another program, perhaps another console; "
                "stop that, or choose another port with --port (0 picks a free one)"
            ) from error
        raise UnusableAddress(
            f"cannot listen on {host} port {port} ({error.strerror or error}); choose an address "
            "of this machine with --host, or another port with --port"
        ) from error
    return listener
