"""One device in a process of its own: ``python -m device_runtime.device --home DIR ...``."""

import argparse
import ctypes
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from device_runtime.device_loop import DeviceLoop, run_until_stopped
from device_runtime.device_store import DeviceStore
from device_runtime.errors import FlintError
from device_runtime.host import DeviceHost, add_host_options, host_settings
from device_runtime.loaded_models import LoadedModels

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_ARENA_MAX = -8


def main(
    arguments: Sequence[str] | None = None, *, program: str = "python -m device_runtime.device"
) -> int:
    """Run the device until SIGTERM, SIGINT or enough tasks; returns the exit code.

    Args:
        arguments: Of the command line; None takes the process's own.
        program: What the help calls the command.
    """
    options = _parser(program).parse_args(arguments)
    _return_memory_soon()
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        _run(options)
    except FlintError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    settings = host_settings(options, default_cache=options.home / "cache")
    _save_user_settings(options)
    host = DeviceHost(settings, LoadedModels(max_engines=1, max_versions=1))
    try:
        loop = DeviceLoop([host.open_device(options.home)], max_tasks=options.tasks, tolerant=False)
        run_until_stopped(loop, host, options.report_every_s)
    finally:
        host.close()


def _return_memory_soon() -> None:
    """Have glibc keep little freed memory, in one arena: 4 MB less at the peak of a task.

    Left to itself it raises its thresholds after the first freed model-sized block, and gives every
    gRPC thread an arena. Other C libraries have no ``mallopt`` and need none.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 1024)


def _save_user_settings(options: argparse.Namespace) -> None:
    changes = {
        name: value
        for name, value in (
            ("opted_out", options.opted_out),
            ("allowed_hours", options.allowed_hours),
            ("min_battery", options.min_battery),
        )
        if value is not None
    }
    if not changes:
        return
    store = DeviceStore(options.home)
    try:
        store.save_settings(replace(store.settings(), **changes))
    finally:
        store.close()


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Run one device until SIGTERM or SIGINT.",
    )
    add_host_options(parser)
    parser.set_defaults(log_level="info")  # one device may say more than each of a fleet
    parser.add_argument(
        "--home", required=True, type=Path, metavar="DIR", help="the device's folder"
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="stop after N finished tasks")
    parser.add_argument(
        "--report-every-s", type=float, metavar="S", help="JSON progress lines on stdout"
    )
    user = parser.add_argument_group("the user's own settings, kept in the device's folder")
    user.add_argument("--opt-out", dest="opted_out", action="store_true", default=None)
    user.add_argument("--opt-in", dest="opted_out", action="store_false", default=None)
    user.add_argument("--allowed-hours", metavar="HH:MM-HH:MM")
    user.add_argument("--min-battery", type=float, metavar="SHARE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
