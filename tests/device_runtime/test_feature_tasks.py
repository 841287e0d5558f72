"""Tasks under a feature contract, on a runner against a real gRPC gateway."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.engine import LiteRtEngine
from device_runtime.feature_manifest import FeatureManifest, Refusal
from device_runtime.feature_tasks import ACTIVITY_FILE, FEATURES_FILE, FeatureTasks
from device_runtime.gateway_client import GatewayBusy, GatewayRefused
from device_runtime.protocol import device_pb2 as pb
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from device_runtime.user_activity import UserActivity, UserEvent
from modeling.zoo import SPARSE_MLP
from tests.device_runtime.ads_service import Cloud, manifest

Outcome = pb.ReportOutcomeRequest
FEATURES = pb.TaskFeatures(
    service="ads", contract_sha256=b"c" * 32, reads="bag", places=64, ids=1024, hash_seed=3
)


class Catalog:
    """What a device fetches of the feature catalog, in memory."""

    def __init__(self) -> None:
        self.answer: FeatureManifest = manifest()
        self.errors: list[Exception] = []
        self.rows = Cloud()

    def manifest(self, service, contract_sha256):
        if self.errors:
            raise self.errors.pop()
        return self.answer

    def assets(self, of, *, unmetered):
        return {}

    def fetch(self, of):
        return self.rows


def activity(count: int = 30) -> UserActivity:
    events = tuple(
        UserEvent(
            {"user_id": "u1", "ad_id": number % 12},
            {"shown": {"hour": number % 24, "place": "top" if number % 2 else "end"}},
            float(number % 3 == 0),
            1_000 * number,
        )
        for number in range(count)
    )
    return UserActivity("ads", events)


@pytest.fixture
def catalog():
    return Catalog()


@pytest.fixture
def features(tmp_path, catalog):
    made = FeatureTasks(tmp_path / "device", catalog, "com.example", lambda: True)
    yield made
    made.close()


@pytest.fixture
def feature_device(start_device, features):
    """A device that has no records of its own but what its user did."""
    return start_device(records=0, features=lambda signer: features)


def task_of(make_task, **changes) -> pb.Task:
    task = make_task(model=SPARSE_MLP)
    task.features.CopyFrom(FEATURES)
    for name, value in changes.items():
        setattr(task.features, name, value)
    return task


def test_a_task_trains_on_what_the_device_joined(
    gateway, feature_device, features, make_task, artifacts, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    task = task_of(make_task)
    gateway.tasks.append(task)
    feature_device.step_until(lambda: gateway.uploads)
    x, y = features.examples(FEATURES, (1,)).load(100)
    assert len(x) == 30
    artifact = artifacts("sparse_mlp")
    expected = train(
        LiteRtEngine(artifact.model_bytes, artifact.manifest),
        TrainingPlan.from_message(task.plan),
        SPARSE_MLP.initial_parameters(seed=1),
        x,
        y,
    )
    assert features.bytes_down > 0
    down = sum(map(len, gateway.blobs.values())) + features.bytes_down
    assert gateway.uploads[0].cost.bytes_down == down
    (update,) = gateway.updates()
    for tensor, delta in zip(update.tensors, expected.delta, strict=True):
        np.testing.assert_array_equal(tensor.array(), delta)


def test_activity_is_replayed_once_and_its_file_goes(features, tmp_path):
    folder = tmp_path / "device"
    activity(7).write(folder / ACTIVITY_FILE)
    assert features.count() == 7
    assert not (folder / FEATURES_FILE).exists()
    assert features.examples(FEATURES, (1,)).count() == features.count() == 7
    assert not (folder / ACTIVITY_FILE).exists()


def test_a_replay_that_was_killed_before_its_file_went_is_not_counted_twice(features, tmp_path):
    folder = tmp_path / "device"
    for _ in range(2):
        activity(7).write(folder / ACTIVITY_FILE)
        assert features.examples(FEATURES, (1,)).count() == 7


def test_activity_for_another_service_waits_for_it(features, tmp_path):
    path = tmp_path / "device" / ACTIVITY_FILE
    replace(activity(7), service="mail").write(path)
    assert features.examples(FEATURES, (1,)).count() == 0
    assert path.exists()
    assert features.count() == 7


def test_a_task_that_contradicts_its_artefact_fails_before_anything_is_joined(
    gateway, feature_device, make_task, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    gateway.tasks.append(task_of(make_task, places=2**20))
    feature_device.step_until(lambda: gateway.reports)
    (report,) = gateway.reports
    assert (report.outcome, report.reason) == (Outcome.FAILED, "unsuitable_features")
    assert (tmp_path / "device" / ACTIVITY_FILE).exists()


def declines(gateway, device, make_task, **changes) -> str:
    gateway.tasks.append(task_of(make_task, **changes))
    device.step_until(lambda: gateway.reports)
    (report,) = gateway.reports
    assert report.outcome == Outcome.DECLINED
    return report.reason


def test_a_task_under_another_contract_than_the_manifests_is_declined(
    gateway, feature_device, make_task, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    reason = declines(gateway, feature_device, make_task, contract_sha256=b"d" * 32)
    assert reason == "feature_contract"


def test_a_task_whose_features_this_device_cannot_make_is_declined(
    gateway, feature_device, make_task, catalog, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    refusal = Refusal("asset", "topics", "too large for this device", ("topic",))
    catalog.answer = replace(manifest(), refusals=(refusal,))
    assert declines(gateway, feature_device, make_task) == "features_refused"


def test_a_task_for_a_service_this_device_may_not_read_is_declined(
    gateway, feature_device, make_task, catalog, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    catalog.errors = [GatewayRefused("PERMISSION_DENIED", "not for this device")]
    assert declines(gateway, feature_device, make_task) == "features_refused"


def test_a_model_this_runtime_does_not_know_is_declined(
    gateway, feature_device, make_task, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    assert declines(gateway, feature_device, make_task, reads="images") == "features_unknown"


def test_a_device_whose_features_cannot_be_had_now_declines_the_task(
    gateway, feature_device, make_task, catalog, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    catalog.rows.is_reachable = False
    assert declines(gateway, feature_device, make_task) == "no_examples"


def test_an_app_that_joins_no_features_declines_the_task(gateway, start_device, make_task):
    assert declines(gateway, start_device(records=5), make_task) == "no_features"


def test_a_gateway_that_is_busy_is_asked_again(
    gateway, feature_device, make_task, catalog, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    catalog.errors = [GatewayBusy("UNAVAILABLE", "away")] * 2
    gateway.tasks.append(task_of(make_task))
    feature_device.step_until(lambda: gateway.uploads)
    assert not gateway.reports


def test_a_damaged_activity_ends_the_task_not_the_device(
    gateway, feature_device, make_task, tmp_path
):
    activity().write(tmp_path / "device" / ACTIVITY_FILE)
    gateway.on_check_in = lambda _: (tmp_path / "device" / ACTIVITY_FILE).write_text('{"service"')
    gateway.tasks.append(task_of(make_task))
    feature_device.step_until(lambda: gateway.reports)
    (report,) = gateway.reports
    assert (report.outcome, report.reason) == (Outcome.FAILED, "unreadable_examples")


def test_a_device_without_anything_its_user_did_asks_for_no_work(gateway, feature_device):
    assert feature_device.step_until_idle() > 0
    assert not gateway.check_ins
