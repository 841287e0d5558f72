"""The ``flint`` command line."""

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The ``flint`` command, also where FLINT is installed without what it needs."""
    try:
        from flint.cli import entry
    except ModuleNotFoundError as error:
        print(
            f"flint: the flint command needs {error.name}, which is not installed; run "
            "`make setup`, or `pip install 'flint-on-flower[server]'`",
            file=sys.stderr,
        )
        sys.exit(2)
    entry.main()
