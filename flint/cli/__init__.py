"""The ``flint`` command line."""

from flint.cli.entry import main

__all__ = ["main"]
