import pytest

from modeling.model_file import UnreadableModelFile, load_model_file
from tests.modeling.user_models import TEXT_CNN_FILE


def test_a_file_gives_what_its_factory_returns_and_prints_nothing_on_stdout(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(TEXT_CNN_FILE)
    found = load_model_file(path)
    assert (found.name, found.framework, found.input_shape) == ("mine", "torch", (12,))
    assert type(found.model).__name__ == "TextNet"
    said = capsys.readouterr()
    assert said.out == ""
    assert "building" in said.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"gives nothing; define a function build_model\(\)"),
        ("model = 3", "gives a int; define"),
        ("import nowhere_to_be_found", "cannot be run .*ModuleNotFoundError: No module named"),
        ("def build_model(): raise SystemExit(3)", r"cannot be run \(SystemExit: 3\)"),
        ("def build_model(width): ...", r"cannot be run \(TypeError: .*width"),
        ("model = (", "cannot be run .*SyntaxError"),
        (
            "from torch import nn; model = nn.Linear(2, 1); input_shape = (4, -1)",
            r"input_shape = \(4, -1\) is not the shape of a record; write one positive number",
        ),
    ],
)
def test_a_file_without_a_model_is_refused_in_one_sentence(text, said, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UnreadableModelFile, match=rf"mine\.py.*{said}.*FLN-1506") as caught:
        load_model_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnreadableModelFile, match=r"there is no file .*absent\.py; give a Python"):
        load_model_file(tmp_path / "absent.py")
