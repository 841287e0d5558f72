"""``python -m server.aggregation --socket PATH``: the aggregator in a process of its own."""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from device_runtime.errors import FlintError
from server.aggregation.mean import MeanAggregator
from server.aggregation.service import serve_until

log = logging.getLogger("server.aggregation")


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.aggregation", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    socket_path: Path = parser.parse_args().socket
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve_until(stop, MeanAggregator(), socket_path)
    except FlintError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
