"""``python -m server.gateway --home DIR``: the gateway process."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from device_runtime.errors import FlintError
from server.gateway.gateway import Gateway
from server.operations.settings import ServerSettings, flint_home

log = logging.getLogger("server.gateway")


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.gateway", description=__doc__)
    parser.add_argument("--home", type=Path, default=None, help="data directory (FLINT_HOME)")
    parser.add_argument("--number", type=int, default=0, help="which of several, from 0")
    arguments = parser.parse_args()
    home: Path = arguments.home or flint_home()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    try:
        gateway = Gateway(ServerSettings.load(home), arguments.number)
    except FlintError as error:
        log.error("%s", error)
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: gateway.ended.set())
    gateway.ended.wait()
    gateway.close()
    if gateway.loss is not None:
        log.error("%s", gateway.loss)
        return gateway.loss.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
