"""An enclave in this process, and devices that seal to it as the runtime does."""

import numpy as np

from device_runtime.protocol import device_pb2 as pb
from device_runtime.secure_updates import VerifiedEnclave, seal_update
from device_runtime.update_codec import encode_update, sha256_of, unflatten
from server.aggregation.aggregator import Envelope
from server.secure_aggregation.enclave import Enclave
from server.secure_aggregation.release_budget import ReleaseBudget
from tests.server.update_examples import MODEL, make_job

JOB_ID = "j-secure"
SIZE = MODEL.parameter_count
MEASUREMENT = "ab" * 32


class TestAttester:
    """Vouches for nothing: what is tested here does not look at documents."""

    provider = "test"
    measurement = bytes.fromhex(MEASUREMENT)

    def document(self, nonce, user_data):
        return nonce + user_data


def secure_job(mode="enclave", *, strategy=None, threshold=3, robustness=None, **secure):
    strategy = strategy or {"name": "fedbuff", "buffer_size": 4, "concurrency": 8}
    block = {
        "mode": mode,
        "release_threshold": threshold,
        "allowed_measurements": [MEASUREMENT],
    } | secure
    return make_job(
        strategy=strategy,
        privacy={"secure_aggregation": block, "robustness": robustness or {}},
    )


class SecureWorld:
    """One enclave with one open job, its catalog's budget, and devices by number."""

    def __init__(self, job, *, enclave=None, budget=None, noise=None, clip_norm=None):
        self.job = job
        self.policy = job.release_policy()
        self.enclave = enclave or Enclave(TestAttester(), noise, clip_norm)
        self.enclave.open(JOB_ID, job, MODEL)
        self.budget = budget or ReleaseBudget.unspent(JOB_ID, 0)
        self.enclave.begin(JOB_ID, self.budget)

    @property
    def verified(self):
        evidence = self.enclave.attest(JOB_ID, bytes(32))
        return VerifiedEnclave(evidence.enclave_key, self.policy)

    def sealed(self, task, delta, *, examples=10, **more):
        update = encode_update(
            MODEL.parameters,
            unflatten(MODEL.parameters, np.asarray(delta, np.float32)),
            num_examples=examples,
            loss_before=0.7,
            loss_after=0.6,
        )
        return self.sealed_update(task, update, **more)

    def sealed_update(
        self, task, update, *, base_version=0, app="app", device=None, codec="", never_sent=False
    ):
        device = device or f"device-{task}"
        sealed_for = pb.SealedFor(
            task_id=task, job_id=JOB_ID, device_id=device, base_version=base_version, codec=codec
        )
        payload = seal_update(self.verified, sealed_for, app, update, never_sent=never_sent)
        return Envelope(task, device, base_version, sha256_of(payload)), payload

    def fold(self, task, delta, **more):
        return self.enclave.fold(*self.sealed(task, delta, **more))

    def release(self, release_id, version):
        """As a gateway does: prepare, store the budget, fetch."""
        self.budget = self.enclave.prepare(JOB_ID, release_id, version, self.budget)
        return self.enclave.release(JOB_ID, release_id, self.budget)


def delta(seed):
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
