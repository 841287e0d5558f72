"""A folder that is no Flower app, or an app that cannot run here, is told in one sentence."""

import random
import shutil
import signal
import sys

import numpy as np
import pytest

from simulation.environment import InvalidEnvironmentValue, parse_environment
from simulation.flower.app_folder import (
    FlowerAppImportFailed,
    InvalidRunConfig,
    NotAFlowerApp,
    UnsupportedFlowerApp,
    imported,
    read_flower_app,
)
from simulation.flower.random_state import seeded
from simulation.flower.recorded_run import prepare_flower_run
from simulation.flower.trial import FlowerAppFailed
from simulation.inputs import FileInputs
from tests.simulation.flower.conftest import ALWAYS, QUICKSTART, seen


def sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(f"[{caught.value.code}]")
    return text


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(QUICKSTART, tmp_path / "copied")


def replaced(folder, name: str, old: str, new: str):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


def refused(folder, kind, overrides=()) -> str:
    with pytest.raises(kind) as caught, imported(read_flower_app(folder, overrides)):
        pass
    return sentence(caught)


def test_an_app_says_its_components_and_settings():
    app = read_flower_app(QUICKSTART, ["num-server-rounds=7 timeout=60", "strategy='fedadam'"])
    assert (app.name, app.version) == ("quickstart-numpy", "1.0.0")
    assert (app.server, app.client) == (
        "quickstart_numpy.server_app:app",
        "quickstart_numpy.client_app:app",
    )
    assert app.run_config["num-server-rounds"] == 7
    assert app.run_config["timeout"] == 60
    assert app.run_config["strategy"] == "fedadam"
    assert app.run_config["learning-rate"] == 0.1


def test_settings_may_come_from_a_toml_file(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("num-server-rounds = 9\n")
    assert read_flower_app(QUICKSTART, [str(path)]).run_config["num-server-rounds"] == 9


def test_a_folder_that_is_no_app_is_refused(tmp_path, copied):
    assert "there is no folder" in refused(tmp_path / "none", NotAFlowerApp)
    assert "has no pyproject.toml" in refused(tmp_path, NotAFlowerApp)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    said = refused(tmp_path, NotAFlowerApp)
    assert 'Property "version" missing in [project]' in said
    assert "Missing [tool.flwr.app] section" in said
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert "describes no Flower app" in refused(tmp_path, NotAFlowerApp)
    replaced(copied, "pyproject.toml", "serverapp =", "agentapp =")
    replaced(copied, "pyproject.toml", "clientapp =", "agent2 =")
    assert "is an agent app" in refused(copied, UnsupportedFlowerApp)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("num-rounds=5", "num-rounds is not a key of the app's run config"),
        ("num-server-round=5", "did you mean num-server-rounds?"),
        ("num-server-rounds=many", "--run-config num-server-rounds=many: "),
        ("num-server-rounds='5'", "is a str, but the app's default 3 is a int"),
        ("num-server-rounds=true", "is a bool, but the app's default 3 is a int"),
        ("rounds", "sets nothing; write key=value pairs"),
        ("none.toml", "No such file"),
    ],
)
def test_settings_the_app_does_not_have_are_refused(override, said):
    assert said in refused(QUICKSTART, InvalidRunConfig, [override])


def test_an_app_whose_import_fails_is_told_with_its_line(copied):
    replaced(
        copied,
        "quickstart_numpy/client_app.py",
        "app = ClientApp()",
        "import torchvisions\napp = 1",
    )
    said = refused(copied, FlowerAppImportFailed)
    assert "clientapp = 'quickstart_numpy.client_app:app' cannot be imported" in said
    assert "No module named 'torchvisions'" in said
    assert "pip install" in said
    assert "in quickstart_numpy/client_app.py:" in said


def test_a_component_that_is_not_there_or_something_else_is_told(copied):
    replaced(copied, "pyproject.toml", "server_app:app", "server_app:application")
    assert "Unable to load attribute application" in refused(copied, FlowerAppImportFailed)
    replaced(copied, "pyproject.toml", "server_app:application", "server_app:STRATEGIES")
    assert "is a dict, not a ServerApp" in refused(copied, FlowerAppImportFailed)
    replaced(copied, "pyproject.toml", "quickstart_numpy.server_app:STRATEGIES", "nowhere:app")
    assert "No module named 'nowhere'" in refused(copied, FlowerAppImportFailed)


def test_a_legacy_server_is_refused(copied):
    replaced(copied, "quickstart_numpy/server_app.py", "@app.main()\n", "")
    assert "legacy server_fn" in refused(copied, UnsupportedFlowerApp)


def test_a_module_whose_name_is_taken_is_refused(copied):
    import server  # noqa: F401 - ours, of the same name

    (copied / "server.py").write_text("from flwr.serverapp import ServerApp\napp = ServerApp()\n")
    replaced(copied, "pyproject.toml", "quickstart_numpy.server_app:app", "server:app")
    assert "a module server is loaded already" in refused(copied, UnsupportedFlowerApp)


def test_each_import_reads_the_app_anew(copied):
    for truth in ("1.0", "2.0"):
        replaced(copied, "quickstart_numpy/task.py", "TRUTH = ", f"VALUE = {truth}\nTRUTH = ")
        with imported(read_flower_app(copied)):
            assert float(truth) == sys.modules["quickstart_numpy.task"].VALUE
        assert "quickstart_numpy.task" not in sys.modules
        replaced(copied, "quickstart_numpy/task.py", f"VALUE = {truth}\n", "")
        shutil.rmtree(copied / "quickstart_numpy" / "__pycache__", ignore_errors=True)


def test_a_server_that_raises_is_told_with_its_line_and_time(worlds, write_app):
    app = write_app("""
        time.sleep(5400)
        raise KeyError("no such round")
    """)
    with pytest.raises(FlowerAppFailed) as caught:
        worlds.run(app, [[ALWAYS]])
    said = sentence(caught)
    assert "stopped after 1.50 virtual hours with KeyError: 'no such round'" in said
    assert "in small_app/server_app.py:" in said


def test_a_server_that_exits_without_an_error_has_ended(worlds, write_app):
    trial = worlds.run(write_app("raise SystemExit(0)"), [[ALWAYS]])
    assert len(trial.trajectory) == 1


def test_a_request_to_end_ends_the_run_also_from_within_a_client(worlds, write_app):
    asked = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0)"
    ask = "grid.send_and_receive([ask(node) for node in grid.get_node_ids()])"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(SystemExit):
            worlds.run(write_app(ask, asked), [[ALWAYS]])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_grid_used_from_a_thread_is_refused(worlds, write_app):
    app = write_app("""
        import threading
        said = []

        def ask_elsewhere():
            try:
                grid.get_node_ids()
            except Exception as error:
                said.append(str(error))

        thread = threading.Thread(target=ask_elsewhere)
        thread.start()
        thread.join()
        see(said=said)
    """)
    worlds.run(app, [[ALWAYS]])
    assert "from another thread" in seen(app)["said"][0]


def test_the_size_of_the_population_must_be_said(worlds):
    text = worlds.environment([[ALWAYS]]).replace("clients: 1, ", "")
    with pytest.raises(InvalidEnvironmentValue, match=r"population\.clients is missing"):
        prepare_flower_run(
            read_flower_app(QUICKSTART), parse_environment(text), FileInputs(worlds.folder), 0
        )


def test_random_numbers_are_seeded_and_go_on_afterwards():
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    with seeded(11):
        first = random.random(), np.random.random()
    assert (random.random(), np.random.random()) == expected
    with seeded(11):
        assert (random.random(), np.random.random()) == first


def test_torchs_generator_is_seeded_too():
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    with seeded(11):
        first = torch.rand(2).tolist()
    assert torch.rand(2).tolist() == expected
    with seeded(11):
        assert torch.rand(2).tolist() == first
