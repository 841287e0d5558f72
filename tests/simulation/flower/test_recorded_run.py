"""What the record of a Flower app's run says of where its numbers come from."""

import sys
import types
from importlib.metadata import version

import pytest

from simulation.flower.recorded_run import versions_that_compute

# Each is installed under a name that is not its module's.
INSTALLED = {"tensorflow": "tensorflow_cpu", "sklearn": "scikit-learn"}


@pytest.mark.parametrize("module", INSTALLED)
def test_a_module_that_is_imported_is_found_under_its_distributions_name(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    distribution = INSTALLED[module]
    assert versions_that_compute()[distribution] == version(distribution)


def test_a_module_that_is_not_imported_is_not_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert "tensorflow_cpu" not in versions_that_compute()
    assert "flwr" in versions_that_compute()
