"""``flint model check`` as a user runs it."""

import json

import pytest

from tests.flint.test_command_line import flint, sentence

pytestmark = pytest.mark.integration


def test_a_fit_model_is_described_as_json(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nprint('hello')\n"
        "model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))"
    )
    result = flint("model", "check", path, "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert all(found[verdict] for verdict in ("fit", "converts", "trains", "matches_twin"))
    assert (found["model"], found["origin"], found["parameters"]) == ("mine", "torch", 38)
    assert found["network_bytes"] == 2 * 4 * 38
    assert found["size_class"] == "third-party SDK"


def test_a_layer_that_devices_cannot_train_is_one_sentence(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 1))"
    )
    result = flint("model", "check", path, "--json", home=tmp_path)
    assert sentence(result).endswith("layer 1: devices cannot train GELU; use relu [FLN-1505]")
