"""Which codec a device is asked for: the job's if it knows it, else none."""

import pytest

from device_runtime.compression import KNOWN_CODECS, UpdateCodec, compress
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_compressed_update
from tests.server.gateway.desk import Desk
from tests.server.update_examples import MODEL, make_delta, make_job, make_payload

TOP_K = {"name": "top_k", "fraction": 0.25, "values": "int8", "error_feedback": True}


def desk_with(compression) -> Desk:
    desk = Desk()
    client = {"max_records": 100, "optimizer": {"learning_rate": 0.1}, "compression": compression}
    desk.open(make_job(client=client))
    desk.set_model(0)
    desk.grant(5)
    return desk


def lease(desk: Desk, codecs=()) -> pb.Task:
    answer = desk.state.check_in("d1", desk.policy.sha256(), (), desk.now_s, codecs)
    assert answer.task is not None
    return answer.task


def test_a_device_that_knows_the_jobs_codec_is_asked_for_it():
    task = lease(desk_with(TOP_K), KNOWN_CODECS)
    wanted = UpdateCodec("top_k", 0.25, "int8", error_feedback=True)
    assert UpdateCodec.from_message(task.plan.codec) == wanted


@pytest.mark.parametrize("codecs", [(), ("int8", "float16"), ("TOP_K", "zstd", "")])
def test_a_device_that_does_not_is_asked_for_plain_float32_and_its_update_counts(codecs):
    desk = desk_with(TOP_K)
    task = lease(desk, codecs)
    assert not task.plan.HasField("codec")
    assert desk.upload(task, make_payload()).verdict == pb.UploadResponse.ACCEPTED


def test_a_job_without_a_codec_asks_nobody_for_one():
    assert not lease(desk_with({"name": "none"}), KNOWN_CODECS).plan.HasField("codec")


def test_an_update_in_the_codec_asked_for_counts_with_its_real_bytes():
    desk = desk_with({"name": "int8"})
    task = lease(desk, KNOWN_CODECS)
    payload = encode_compressed_update(
        MODEL.parameters,
        compress(make_delta(1), UpdateCodec("int8"), seed=task.plan.shuffle_seed),
        num_examples=10,
        loss_before=0.7,
        loss_after=0.5,
    )
    assert desk.upload(task, payload).verdict == pb.UploadResponse.ACCEPTED
    (completed,) = desk.progress().completed
    assert completed.bytes_up == len(payload)


def test_the_same_task_is_handed_out_again_with_the_codec_it_had():
    desk = desk_with(TOP_K)
    assert lease(desk, KNOWN_CODECS) == lease(desk, ())
