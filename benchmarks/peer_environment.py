r"""Make the environment of a peer that a benchmark compares with, outside of ours and the project.

    python benchmarks/peer_environment.py feast
    python benchmarks/peer_environment.py feast --folder /data/peers/feast

Pins are in ``benchmarks/peers/NAME.txt``. Prints the environment's Python; one that is there with
these pins is used again. Without ``--folder`` it is in ``~/.cache/flint-peers/NAME``.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PINS = Path(__file__).resolve().parent / "peers"


class PeerNotInstalled(Exception):
    """An environment that cannot be made; says what pip said last."""


def peer_python(name: str, folder: Path | None = None) -> Path:
    """Python of a peer's environment, which is made where it is not there yet.

    Args:
        name: Of a file in ``benchmarks/peers``, without ``.txt``.
        folder: Where it is to be; by default ``~/.cache/flint-peers/NAME``.

    Raises:
        PeerNotInstalled: If pip cannot install what is pinned.
    """
    folder = folder or Path.home() / ".cache" / "flint-peers" / name
    pins, made_of = PINS / f"{name}.txt", folder / "made-of.txt"
    python = folder / "bin" / "python"
    if made_of.exists() and made_of.read_text() == pins.read_text():
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        sys.exit(f"{folder} holds something else; give an empty --folder, or one that is not there")
    old = folder.with_name(f"{folder.name}.old")  # moved first: half removed it is nobody's
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    print(f"making {folder}, which takes a minute or two", file=sys.stderr)
    venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, "--requirement", str(pins)], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeerNotInstalled((errors or done.stderr.splitlines() or ["pip failed"])[-1])
    made_of.write_text(pins.read_text())  # last: an environment that is half made is made anew
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("name", choices=sorted(each.stem for each in PINS.glob("*.txt")))
    parser.add_argument("--folder", type=Path, help="where it is to be")
    options = parser.parse_args()
    try:
        print(peer_python(options.name, options.folder))
    except PeerNotInstalled as error:
        sys.exit(f"{options.name} cannot be installed: {error}")


if __name__ == "__main__":
    main()
