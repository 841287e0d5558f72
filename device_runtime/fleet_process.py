"""Many devices in one process: ``python -m device_runtime.fleet_process --server HOST:PORT ...``.

Every sub-folder of ``--devices`` is one device, with its own key, its own records and its own
settings; they share one channel, one cache and one engine an artefact.
"""

import argparse
import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from device_runtime.device_loop import DeviceLoop, run_until_stopped
from device_runtime.errors import FlintError
from device_runtime.host import DeviceHost, Imposed, add_host_options, host_settings
from device_runtime.imposed_conditions import (
    Epoch,
    InvalidImposedConditions,
    read_conditions,
)
from device_runtime.loaded_models import LoadedModels

_FILES_A_DEVICE = 8
_OTHER_FILES = 100


class NoDevices(FlintError):
    """A fleet without devices."""

    code = "FLN-1410"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fleet until SIGTERM or SIGINT; returns the exit code."""
    options = _parser().parse_args(arguments)
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
    folders = device_folders(options.devices, options.first, options.count)
    imposed = _imposed(options, folders)
    _allow_open_files(len(folders) * _FILES_A_DEVICE + _OTHER_FILES)
    host = DeviceHost(
        host_settings(options, default_cache=options.devices / ".cache"), LoadedModels()
    )
    try:
        loop = DeviceLoop(
            [host.open_device(folder, imposed.get(folder.name)) for folder in folders],
            max_tasks=options.tasks,
            tolerant=True,
        )
        run_until_stopped(loop, host, options.report_every_s)
    finally:
        host.close()


def device_folders(devices: Path, first: int, count: int | None) -> list[Path]:
    """Folders of the devices ``first`` to ``first + count - 1``, by name.

    Raises:
        NoDevices: If there are none.
    """
    try:
        names = sorted(
            entry for entry in devices.iterdir() if entry.is_dir() and entry.name[0] != "."
        )
    except OSError as error:
        raise NoDevices(
            f"cannot read the folder of devices {devices} ({error.strerror}); "
            "make one with `flint device fleet`"
        ) from error
    chosen = names[first:] if count is None else names[first : first + count]
    if not chosen:
        raise NoDevices(
            f"{devices} has {len(names)} devices, none of them from number {first} on; "
            "give a folder with one sub-folder a device"
        )
    return chosen


def _imposed(options: argparse.Namespace, folders: Sequence[Path]) -> dict[str, Imposed]:
    """Conditions of each device by name; none unless they are asked for."""
    if options.conditions is None:
        return {}
    found = read_conditions(options.conditions)
    missing = [folder.name for folder in folders if folder.name not in found]
    if missing:
        raise InvalidImposedConditions(
            f"{options.conditions} has no conditions of device {missing[0]}; give every device "
            "of the fleet some, {} for none"
        )
    epoch = Epoch(options.epoch_file or options.conditions.with_suffix(".epoch"))
    return {folder.name: (found[folder.name], epoch) for folder in folders}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m device_runtime.fleet_process",
        description="Run many devices in one process until SIGTERM or SIGINT.",
    )
    add_host_options(parser)
    parser.add_argument("--devices", required=True, type=Path, metavar="DIR")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="by name, from 0")
    parser.add_argument("--count", type=int, metavar="M", help="default: all from --first on")
    parser.add_argument("--tasks", type=int, metavar="N", help="stop after N finished tasks")
    parser.add_argument(
        "--report-every-s", type=float, metavar="S", help="JSON progress lines on stdout"
    )
    parser.add_argument(
        "--conditions", type=Path, metavar="FILE", help="impose speeds, links and windows"
    )
    parser.add_argument(
        "--epoch-file",
        type=Path,
        metavar="FILE",
        help="with --conditions: when windows begin to count, as unix seconds; until it is there "
        "no device asks for work (default: FILE.epoch beside the conditions)",
    )
    return parser


def _allow_open_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


if __name__ == "__main__":
    sys.exit(main())
