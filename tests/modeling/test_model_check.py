"""Users' models from their file to the verdict; each check converts, so there are few."""

import pytest

from modeling.model_check import check_model
from modeling.model_file import UnreadableModelFile
from modeling.zoo import UnknownModel
from tests.modeling.user_models import KERAS_FILE, TEXT_CNN_FILE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=[("torch", TEXT_CNN_FILE), ("keras", KERAS_FILE)])
def user_check(request, tmp_path_factory):
    framework, text = request.param
    path = tmp_path_factory.mktemp(framework) / "mine.py"
    path.write_text(text)
    return framework, check_model(str(path))


def test_a_users_model_is_fit_when_it_trains_as_its_own_framework_trains_it(user_check):
    framework, check = user_check
    assert check.is_fit, check
    assert (check.origin, check.spec.name, check.custom_operators) == (framework, "mine", ())
    assert check.last_loss < check.first_loss
    frozen = 800 if framework == "torch" else 0
    assert check.sizes.frozen_parameters == frozen
    assert check.sizes.network_bytes == 8 * check.spec.parameter_count
    assert check.sizes.size_class == "third-party SDK"
    assert {"GATHER", "REDUCE_MAX", "FULLY_CONNECTED"} <= set(check.operators)


def test_a_registered_model_is_checked_by_its_name():
    check = check_model("tiny_mlp")
    assert check.is_fit
    assert check.sizes.parameters == 1_513


def test_a_model_whose_layers_do_not_fit_is_its_authors_to_mend(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(5, 1))"
    )
    with pytest.raises(UnreadableModelFile, match=r"fails on 20 records of float32\(6,\)"):
        check_model(str(path))


def test_a_name_of_nothing_is_an_unknown_model_or_a_missing_file():
    with pytest.raises(UnknownModel, match="did you mean tiny_mlp"):
        check_model("tiny_mpl")
    with pytest.raises(UnreadableModelFile, match="there is no file"):
        check_model("models/mine.py")
