"""Device, gateway and coordinator import these; a training framework costs them half a gigabyte."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "modeling.spec",
        "modeling.metrics",
        "modeling.zoo",
        "modeling.compression",
        "modeling.model_check",
    ],
)
def test_specs_and_metrics_load_neither_torch_nor_tensorflow(module):
    code = (
        f"import sys, {module}; "
        "print(sorted({'torch', 'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.decode().strip() == "[]"
