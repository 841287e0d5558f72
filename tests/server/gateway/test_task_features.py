"""A job's features are named in its tasks, and devices that cannot join them get none."""

from device_runtime.protocol import device_pb2 as pb
from server.gateway.held_back import HeldBackReason
from tests.server.gateway.desk import Desk
from tests.server.update_examples import make_job

CONTRACT = "ab" * 32


def desk_with(**job) -> Desk:
    desk = Desk()
    desk.open(make_job(**job), feature_hash_seed=9)
    desk.set_model(0)
    desk.grant(5)
    return desk


def test_a_task_says_which_features_it_is_for_and_what_the_model_reads_of_them():
    task = desk_with(feature_service=f"ads_ctr_v1@{CONTRACT}").lease()
    assert task.features == pb.TaskFeatures(
        service="ads_ctr_v1",
        contract_sha256=bytes.fromhex(CONTRACT),
        reads="numbers",
        places=2,
        hash_seed=9,
    )


def test_a_task_of_a_job_without_a_service_says_nothing_of_features():
    assert not desk_with().lease().HasField("features")


def test_a_runtime_that_would_train_on_other_records_gets_no_task():
    desk = desk_with(feature_service=f"ads_ctr_v1@{CONTRACT}")
    assert desk.state.refuses_runtime(2).reason is HeldBackReason.RUNTIME_TOO_OLD
    assert desk.state.refuses_runtime(3) is None
    assert desk_with().state.refuses_runtime(0) is None
