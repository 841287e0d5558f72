"""Many devices at once: answers kept as they come, failures told apart, runs gone on with."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from android_bench.assembled_results import failed_result
from android_bench.devices.base import Answer, DeviceUnavailable
from android_bench.devices.cores import Cores
from android_bench.devices.host import HostDevice
from android_bench.devices.select import SelectContext, UnknownBenchDevice, select_groups
from android_bench.harness import DeviceOutcome, run_benchmark
from android_bench.package import BenchPackage
from android_bench.packing import load_model, pack, random_records
from android_bench.protocol import (
    BenchResult,
    BenchSpec,
)
from android_bench.run_folder import BenchFolderConflict, RunFolder, open_run_folder
from modeling.zoo import MODELS
from tests.android_bench.results import DEVICE, SPEC, result

OWN_MODEL = """
from torch import nn

input_shape = (6,)


def build_model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
"""


@dataclass
class ScriptedGroup:
    """A farm of devices that answer, in order, with these results; an error ends it."""

    name: str
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    error: Exception | None = None
    ran: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def run(self, spec: BenchSpec, package: BenchPackage, state: Path) -> Iterator[Answer]:
        self.ran += 1
        assert state.is_dir()
        for name, data in self.answers:
            yield Answer(name, data)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()


def good(device_id: str) -> bytes:
    return result(device=replace(DEVICE, id=device_id)).to_json().encode()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, SPEC)


def test_one_device_that_fails_costs_no_other_its_result(folder: RunFolder):
    bad = failed_result(DEVICE, SPEC, "it hung").to_json().encode()
    groups = [
        ScriptedGroup("farm", [("farm/a", good("a")), ("farm/b", bad), ("farm/c", b"Killed")]),
        ScriptedGroup("adb:1", [], DeviceUnavailable("adb:1 is offline; plug it in")),
        ScriptedGroup("host", [("host", good("h"))]),
        ScriptedGroup("silent"),
    ]
    told: list[DeviceOutcome] = []
    outcomes = run_benchmark(folder, groups, told.append)
    assert told == outcomes.devices
    ok = {outcome.name for outcome in outcomes.devices if outcome.is_ok}
    assert ok == {"farm/a", "host"}
    failures = outcomes.failures
    assert failures["farm/b"] == "it hung"
    assert "is no JSON" in failures["farm/c"]
    assert "plug it in" in failures["adb:1"]
    assert failures["silent"] == "it gave no answer"
    assert len(outcomes.results) == 3
    assert all(group.closed.is_set() for group in groups)


def test_answers_before_a_group_breaks_off_are_kept(folder: RunFolder):
    group = ScriptedGroup("farm", [("farm/a", good("a"))], DeviceUnavailable("the run stopped"))
    outcomes = run_benchmark(folder, [group])
    assert [o.name for o in outcomes.devices if o.is_ok] == ["farm/a"]
    assert "the run stopped" in outcomes.failures["farm"]


def test_a_resumed_run_asks_only_groups_that_have_not_answered_well(folder: RunFolder):
    whole = ScriptedGroup("host", [("host", good("h"))])
    broken = ScriptedGroup("adb:1", [], DeviceUnavailable("offline"))
    run_benchmark(folder, [whole, broken])
    again = [
        ScriptedGroup("host", [("host", good("another"))]),
        ScriptedGroup("adb:1", [("adb:1", good("a"))]),
    ]
    outcomes = run_benchmark(folder, again)
    assert [group.ran for group in again] == [0, 1]
    kept = {o.name: (o.is_kept, o.result and o.result.device.id) for o in outcomes.devices}
    assert kept == {"host": (True, "h"), "adb:1": (False, "a")}


def test_a_kept_answer_that_is_damaged_is_measured_again(folder: RunFolder, tmp_path: Path):
    run_benchmark(folder, [ScriptedGroup("host", [("host", good("h"))])])
    [kept] = (tmp_path / "results").rglob("*.json")
    kept.write_bytes(kept.read_bytes()[:-20])
    again = ScriptedGroup("host", [("host", good("h"))])
    assert run_benchmark(folder, [again]).devices[0].is_ok
    assert again.ran == 1


def test_an_answer_about_another_model_is_refused(folder: RunFolder):
    other = result(spec=replace(SPEC, records=7)).to_json().encode()
    outcomes = run_benchmark(folder, [ScriptedGroup("host", [("host", other)])])
    assert "records 7, and 5000 was asked for" in outcomes.failures["host"]


def test_an_interrupt_closes_every_device_and_leaves_answers_in_the_folder(folder: RunFolder):
    class Endless(ScriptedGroup):
        def run(self, spec: BenchSpec, package: BenchPackage, state: Path) -> Iterator[Answer]:
            assert self.closed.wait(30)
            yield Answer(self.name, failed_result(DEVICE, spec, "stopped").to_json().encode())

    quick, endless = ScriptedGroup("host", [("host", good("h"))]), Endless("slow")

    def interrupt(_: DeviceOutcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(folder, [quick, endless], interrupt)
    assert endless.closed.is_set()
    assert folder.kept("host") is not None
    assert folder.kept("slow") is None


def test_odd_device_names_are_files_of_their_own(folder: RunFolder):
    names = ["../../x", "a/b", "a:b", "é" * 300, "a b"]
    group = ScriptedGroup("farm", [(name, good(str(i))) for i, name in enumerate(names)])
    run_benchmark(folder, [group])
    kept = folder.kept("farm")
    assert kept is not None
    assert set(kept) == set(names)
    assert all(path.is_relative_to(folder.path) for path in folder.path.rglob("*"))


# -- folders and packages --------------------------------------------------------------------------


def test_a_package_is_written_anew_only_if_it_is_not_what_was_asked_for(packed, tmp_path: Path):
    folder = tmp_path / "package"
    shutil.copytree(packed.package.folder, folder)
    asked = {"records": 200, "repeats": 2, "min_pass_s": 0.05}
    model = load_model("tiny_mlp")
    (folder / "model.tflite").touch()
    written_ns = (folder / "model.tflite").stat().st_mtime_ns
    assert pack(model, folder, **asked) == (packed.spec, BenchPackage(folder))
    assert (folder / "model.tflite").stat().st_mtime_ns == written_ns
    (folder / "records.bin").write_bytes(b"damaged")
    assert pack(model, folder, **asked)[0] == packed.spec
    assert (folder / "records.bin").read_bytes() == packed.package.records_path.read_bytes()
    model.parameters[0][0] += 1  # a user's model that was trained on since
    pack(model, folder, **asked)
    assert (folder / "parameters.bin").read_bytes() != packed.package.parameters_path.read_bytes()


def test_a_users_own_model_is_packed_and_measured(tmp_path: Path):
    path = tmp_path / "my_model.py"
    path.write_text(OWN_MODEL)
    spec, package = pack(
        load_model(str(path)), tmp_path / "p", records=50, repeats=1, min_pass_s=0.01
    )
    answer = BenchResult.from_json(HostDevice(Cores()).run(spec, package))
    assert answer.validity.ok
    assert answer.build is not None
    assert answer.build.model == "my_model"


def test_a_run_goes_on_only_in_a_folder_of_the_same_benchmark(tmp_path: Path):
    model = load_model("tiny_mlp")
    path = tmp_path / "run"
    begun = open_run_folder(path, model, resume=False, records=50)
    assert open_run_folder(path, model, resume=True, records=50) == begun
    with pytest.raises(BenchFolderConflict, match="give --resume"):
        open_run_folder(path, model, resume=False, records=50)
    with pytest.raises(BenchFolderConflict, match="records 50, and 60"):
        open_run_folder(path, model, resume=True, records=60)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").touch()
    with pytest.raises(BenchFolderConflict, match="holds no benchmark"):
        open_run_folder(foreign, model, resume=True)
    with pytest.raises(BenchFolderConflict):
        open_run_folder(foreign / "cat.jpg", model, resume=True)


@pytest.mark.parametrize("name", MODELS)
def test_records_have_the_form_a_model_takes_and_depend_on_the_seed_alone(name: str):
    spec = MODELS[name]
    x, y = random_records(spec, 300, seed=4)
    again, labels = random_records(spec, 300, seed=4)
    assert x.shape == (300, *spec.input.shape)
    assert str(x.dtype) == spec.input.dtype
    assert y.shape == (300, *spec.label_shape)
    assert (x == again).all()
    assert (y == labels).all()
    assert 0.25 < y.mean() < 0.35
    other, _ = random_records(spec, 300, seed=5)
    assert (x != other).any()
    if spec.ids is not None:
        assert x.max() < spec.ids
        assert x.min() >= (0 if spec.input.padding is None else spec.input.padding)


# -- what --devices selects ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("host", ["host"]),
        ("host,emulated:tier-01,tier-27", ["host", "emulated:tier-01", "emulated:tier-27"]),
        ("emulated:tier-05, host ,emulated:tier-05", ["emulated:tier-05", "host"]),
    ],
)
def test_devices_are_selected_once_each_in_order(text, names):
    assert [group.name for group in select_groups(text, SelectContext())] == names


def test_the_whole_emulated_fleet_is_27_devices():
    assert len(select_groups("emulated", SelectContext())) == 27


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts", "did you mean host?"),
        ("emulated:tier-99", "there are tier-01 to tier-27"),
        ("host:me", "host takes no name"),
        ("", "names none"),
        ("tier-01", "no back end 'tier-01'"),
    ],
)
def test_an_unknown_device_is_one_sentence(text, said):
    with pytest.raises(UnknownBenchDevice) as refused:
        select_groups(text, SelectContext())
    assert said in str(refused.value)


def test_a_result_read_back_from_the_folder_is_the_same_to_the_byte(folder: RunFolder):
    answer = result()
    run_benchmark(folder, [ScriptedGroup("host", [("host", answer.to_json().encode())])])
    kept = folder.kept("host")
    assert kept is not None
    assert kept["host"].to_json() == answer.to_json()
    assert isinstance(kept["host"], BenchResult)
