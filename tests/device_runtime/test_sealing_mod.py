"""The client mod of SuperNodes: a nonce first, then evidence, and only then training."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from device_runtime import flower_records as names
from device_runtime.flower_records import EchoKey, MetricKey, SecureKey
from device_runtime.protocol import device_pb2 as pb
from device_runtime.sealing import open_sealed
from device_runtime.sealing_mod import sealing_mod
from tests.device_runtime.attested_enclaves import trust
from tests.device_runtime.test_secure_tasks import MEASUREMENT, POLICY, EnclaveBoot

NODE_ID = 7


@pytest.fixture(autouse=True)
def flower_process(monkeypatch):
    """What a SuperNode's own process sets before it calls the app."""
    for field in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


class Node:
    """A SuperNode with a ClientApp that adds 0.5 to its one weight."""

    def __init__(self, folder):
        path = folder / "trust.json"
        path.write_text(trust().to_json())
        config = {names.TRUST_NODE_CONFIG: str(path), names.APP_NODE_CONFIG: "kiosk"}
        self.context = Context(
            run_id=1, node_id=NODE_ID, node_config=config, state=RecordDict(), run_config={}
        )
        self.trained = 0

    def app(self, message, context):
        self.trained += 1
        local = message.content.array_records[names.ARRAYS]["w"].numpy() + 0.5
        metrics = {str(key): 1.0 for key in MetricKey} | {str(MetricKey.NUM_EXAMPLES): 10}
        return Message(
            RecordDict(
                {
                    names.ARRAYS: ArrayRecord({"w": Array(local)}),
                    names.METRICS: MetricRecord(metrics),
                    names.ECHO: ConfigRecord(
                        {EchoKey.BASE_VERSION: 3, EchoKey.CONTRACT_SHA256: b"c"}
                    ),
                }
            ),
            reply_to=message,
        )

    def answer(self, secure=None):
        content = RecordDict({names.ARRAYS: ArrayRecord({"w": Array(np.zeros(1, np.float32))})})
        if secure is not None:
            content[names.SECURE] = ConfigRecord({str(k): v for k, v in secure.items()})
        message = Message(content, NODE_ID, "train")
        message.metadata.__dict__["_message_id"] = "m-1"
        return sealing_mod(message, self.context, self.app)

    def nonce(self):
        reply = self.answer({SecureKey.JOB_ID: "j-1"})
        return reply.content.config_records[names.SECURE][SecureKey.NONCE]


def sealed_for(**changed):
    fields = {"task_id": "t-1", "job_id": "j-1", "device_id": f"node-{NODE_ID}", "base_version": 3}
    return pb.SealedFor(**(fields | changed))


def task(boot, nonce, binding=None):
    demands = pb.SecureAggregation(
        release_policy_json=POLICY.to_json(), allowed_measurements=[MEASUREMENT]
    )
    evidence = boot.attest(pb.AttestRequest(nonce=nonce))
    return {
        SecureKey.JOB_ID: "j-1",
        SecureKey.DEMANDS: demands.SerializeToString(),
        SecureKey.EVIDENCE: evidence.SerializeToString(),
        SecureKey.SEALED_FOR: (binding or sealed_for()).SerializeToString(),
    }


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def refusal(node, reply):
    assert node.trained == 0, "nothing is trained for whom nothing is sealed"
    assert reply.has_error()
    return reply.error.reason.split(":")[0]


def test_what_a_node_learns_leaves_it_sealed(node):
    boot = EnclaveBoot()
    reply = node.answer(task(boot, node.nonce())).content
    assert names.ARRAYS not in reply
    payload = pb.SealedUpdate.FromString(reply.config_records[names.SECURE][SecureKey.PAYLOAD])
    content = open_sealed(boot.private_key, boot.key, sealed_for(), payload.sealed)
    content = pb.SealedContent.FromString(content)
    assert (content.app_id, content.never_sent) == ("kiosk", True)
    update = pb.Update.FromString(content.update)
    assert update.num_examples == 10


def test_a_nonce_serves_once(node):
    nonce = node.nonce()
    node.answer(task(EnclaveBoot(), nonce))
    node.trained = 0
    again = node.answer(task(EnclaveBoot(), nonce))
    assert refusal(node, again) == "attestation_wrong_nonce"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device_id": "node-8"}, "attestation_other_node"),
        ({"job_id": "j-2"}, "attestation_wrong_job"),
    ],
)
def test_a_node_seals_in_its_own_name_for_the_task_it_was_given(node, changed, reason):
    """Else a host could have one node count as any number of them."""
    reply = node.answer(task(EnclaveBoot(), node.nonce(), sealed_for(**changed)))
    assert refusal(node, reply) == reason


def test_an_enclave_that_is_another_program_gets_nothing(node):
    reply = node.answer(task(EnclaveBoot(measurement=bytes(32)), node.nonce()))
    assert refusal(node, reply) == "attestation_measurement_not_allowed"


def test_tasks_of_other_jobs_pass_through(node):
    assert names.ARRAYS in node.answer().content
    assert node.trained == 1
