"""Small measurement files, written as a user would."""

from tests.simulation.traces.conftest import write_table

__all__ = ["write_table"]
