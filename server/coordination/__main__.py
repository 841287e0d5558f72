"""``python -m server.coordination --home DIR``: the coordinator process."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from device_runtime.errors import FlintError
from server.coordination.service import Coordinator
from server.operations.settings import ServerSettings


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="server.coordination", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="data directory of the deployment")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        coordinator = Coordinator(ServerSettings.load(arguments.home))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: coordinator.stop())
        coordinator.run()
    except FlintError as error:
        logging.getLogger("server.coordination").error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
