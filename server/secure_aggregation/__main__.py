"""``python -m server.secure_aggregation --socket PATH``: the enclave, a process of its own."""

import argparse
import logging
import resource
import signal
import sys
import threading
from pathlib import Path

from device_runtime.errors import FlintError
from server.secure_aggregation.attesters import AttesterSettings, load_attester
from server.secure_aggregation.configuration import enclave_configuration, options_of
from server.secure_aggregation.enclave import Enclave
from server.secure_aggregation.measurement import measure
from server.secure_aggregation.service import serve_enclave_until

log = logging.getLogger("server.secure_aggregation")


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m server.secure_aggregation", description=__doc__
    )
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument("--provider", default="software_root", help="who vouches for this process")
    parser.add_argument("--secrets", type=Path, required=True, help="folder of the provider's key")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the provider"
    )
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # Keys and updates are in this process's memory: no file is to get them when it crashes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        options = options_of(arguments.option)
        measurement = measure(enclave_configuration(arguments.provider, options))
        attester = load_attester(
            arguments.provider,
            AttesterSettings(measurement.value, arguments.secrets, options),
        )
        log.info("measurement %s, provider %s", attester.measurement.hex(), attester.provider)
        serve_enclave_until(stop, Enclave(attester), arguments.socket)
    except FlintError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
