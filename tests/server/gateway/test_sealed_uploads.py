"""Updates that were sealed to an enclave which is gone, at a gateway with a real enclave."""

import numpy as np
import pytest

from device_runtime.protocol import device_pb2 as pb
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.intake import UpdateIntake
from tests.server.gateway.desk import Desk
from tests.server.secure_aggregation.secure_devices import SIZE, SecureWorld, secure_job


@pytest.fixture
def desk():
    desk = Desk()
    desk.open(secure_job())
    desk.set_model(1)
    desk.grant(4)
    return desk


def upload(desk, task, released):
    """To a gateway whose enclave is of another boot than the one the update is sealed to."""
    before, now = SecureWorld(secure_job()), SecureWorld(secure_job())
    _, payload = before.sealed(task.task_id, np.zeros(SIZE), base_version=1, device="d1")
    desk.intake = UpdateIntake(
        desk.state,
        now.enclave,
        FoldBarrier(),
        desk.outcomes,
        observe_fold_s=lambda _: None,
        newest_released=lambda _: released,
    )
    return desk.upload(task, payload)


def test_a_device_is_asked_to_seal_again_while_nothing_of_its_version_was_released(desk):
    task = desk.lease()
    response = upload(desk, task, released=0)
    assert response.verdict == pb.UploadResponse.RETRY_LATER
    assert response.reason_code == 2202
    assert upload(desk, task, released=0).reason_code == 2202, "its task is as before"


def test_it_is_not_once_an_enclave_may_have_let_the_update_out(desk):
    """Each enclave remembers what it let out, and none what another has."""
    response = upload(desk, desk.lease(), released=1)
    assert response.verdict == pb.UploadResponse.REJECTED
    assert response.reason_code == 2206
    assert desk.counted[("rejected", "version_released")] == 1
