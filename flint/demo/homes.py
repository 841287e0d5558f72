"""Data directories of demos: a fresh one each time, of which the newest few stay."""

import shutil
from datetime import datetime
from pathlib import Path

from device_runtime.errors import FlintError
from server.operations.home_claim import running_server
from server.operations.settings import flint_home, settings_path

KEPT = 3
_MARK = ".flint-demo"


class HomeInUse(FlintError):
    """The directory asked for is that of a deployment, not of a demo."""

    code = "FLN-1257"


def demo_home(asked: Path | None) -> Path:
    """The directory for this demo, made and marked; older ones of ours are deleted.

    Args:
        asked: The user's choice; None for a new one under ``$FLINT_HOME/demo``.

    Raises:
        HomeInUse: If the user's choice holds a deployment that no demo made.
    """
    if asked is not None:
        home = asked.expanduser().absolute()
        if settings_path(home).exists() and not (home / _MARK).exists():
            raise HomeInUse(
                f"{home} is the data directory of a server, not of a demo, and a demo would add "
                "its devices and jobs to it; give another --home"
            )
    else:
        parent = flint_home() / "demo"
        _delete_old(parent)
        home = _new_directory(parent)
    home.mkdir(parents=True, exist_ok=True)
    (home / _MARK).touch()
    return home


def _new_directory(parent: Path) -> Path:
    # Names sort by age; two demos do not start in the same microsecond.
    home = parent / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    home.mkdir(parents=True)
    return home


def _delete_old(parent: Path) -> None:
    """Keep the newest ones, so that demos do not fill the disk, and any whose server still runs."""
    if not parent.is_dir():
        return
    demos = sorted(path for path in parent.iterdir() if (path / _MARK).exists())
    for home in demos[: max(0, len(demos) - (KEPT - 1))]:
        if running_server(home) is None:
            shutil.rmtree(home, ignore_errors=True)
