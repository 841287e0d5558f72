"""Ports: free ones chosen, taken ones named, before anything starts."""

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from device_runtime.errors import FlintError


class PortInUse(FlintError):
    """Another program listens where FLINT is to listen."""

    code = "FLN-1203"


class UnusableAddress(FlintError):
    """This machine has no such address, or may not listen there."""

    code = "FLN-1214"


def choose_ports(wanted: Mapping[str, tuple[str, int]]) -> dict[str, int]:
    """Check that every port is free, and pick free ones where 0 is asked for.

    Args:
        wanted: For each purpose, e.g. ``"gateway"``, host and port. Names are those of the options
            that set them: ``gateway`` is ``--gateway-port``; ``"gateway 2"`` follows from it.

    Raises:
        PortInUse: If a port is taken, or asked for twice.
        UnusableAddress: If the host cannot be listened on.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as held:  # all at once, so that no two get the same
        for name, (host, port) in sorted(wanted.items(), key=lambda item: item[1][1] == 0):
            probe = held.enter_context(socket.socket(_family(host), socket.SOCK_STREAM))
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                twin = next((other for other, taken in chosen.items() if taken == port), None)
                raise _explain(error, name, host, port, twin) from error
            chosen[name] = probe.getsockname()[1]
    return chosen


def _explain(error: OSError, name: str, host: str, port: int, twin: str | None) -> FlintError:
    option = f"--{name.split(maxsplit=1)[0].replace('_', '-')}-port"
    if error.errno == errno.EADDRINUSE and twin is not None:
        return PortInUse(
            f"port {port} is meant for the {twin.replace('_', ' ')} and for the "
            f"{name.replace('_', ' ')}; choose another one with {option} (0 picks a free one)"
        )
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} on {host}, meant for the {name.replace('_', ' ')}, is in use by another "
            f"program; stop that, or choose another port with {option} (0 picks a free one)"
        )
    return UnusableAddress(
        f"cannot listen on {host} port {port} for the {name.replace('_', ' ')} "
        f"({error.strerror or error}); choose an address of this machine, or another port with "
        f"{option}"
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Inverse of `join_address`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_accepting(address: str, timeout_s: float = 1.0) -> bool:
    """Whether something accepts TCP connections at ``host:port`` on this machine."""
    host, port = split_address(address)
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        with socket.create_connection((reachable, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def is_accepting_socket(path: Path, timeout_s: float = 1.0) -> bool:
    """Whether something accepts connections at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
