"""Secure jobs on real parts: devices verify a real enclave process, seal, and it lets out sums."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from sqlalchemy import select

from device_runtime.protocol import device_pb2 as pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.secure_updates import VerifiedEnclave, seal_update
from device_runtime.update_codec import encode_update, unflatten
from feature_catalog.schema import ReleaseBudgetRecord, TaskOutcomeRecord
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.submission import submit
from modeling.zoo import get_model
from server.job import Job
from server.operations.supervisor import read_status
from server.operations.up import ServerOptions, start_up
from server.secure_aggregation.configuration import enclave_configuration
from server.secure_aggregation.measurement import measure
from tests.server.gateway.scripted_device import ScriptedDevice

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = 16
THRESHOLD = 4
IN_TRANSIT = 5  # updates sealed to the boot that died, and not yet taken in
PORTS = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=60,
    aggregator="enclave",
)
FEDBUFF = {"name": "fedbuff", "buffer_size": 6, "concurrency": 10}
FEDAVG = {
    "name": "fedavg",
    "cohort_size": 6,
    "over_commitment": 1.3,
    "round_deadline_s": 30,
    "min_updates": THRESHOLD,
    "weighting": "uniform",
}


@contextlib.contextmanager
def running_server(options):
    # Not under pytest's own directory: as root Postgres has a user of its own, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-enclave-"))
    home.chmod(0o755)
    supervisor = start_up(home, options)
    try:
        yield supervisor
    finally:
        supervisor.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def server():
    with running_server(PORTS) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def deployment(server):
    return Deployment.attach(server.settings.home)


@pytest.fixture(scope="module")
def fleet(deployment, tmp_path_factory):
    with running_fleet(deployment, tmp_path_factory.mktemp("data")) as running:
        yield running


@contextlib.contextmanager
def running_fleet(deployment, data_folder, devices=DEVICES):
    data = generate_demo_data(data_folder, training_clients=devices, seed=3)
    row = deployment.datasets.add(data.path, data.roles, get_model("sparse_mlp"))
    dataset = deployment.datasets.open(f"{row.name}@{row.version}")
    folder = dataset_folder(deployment.settings, dataset)
    fill_stores(dataset, folder, devices, lambda _: None)
    with LocalFleet(deployment, folder, devices, processes=1) as running:
        yield running


@pytest.fixture(scope="module")
def measurement():
    return measure(enclave_configuration("software_root", {})).value.hex()


def secure_job(measurement, strategy, mode, aggregations, threshold=THRESHOLD):
    secure = {
        "mode": mode,
        "release_threshold": threshold,
        "allowed_measurements": [measurement],
    }
    return Job.model_validate(
        {
            "name": f"secure-{strategy['name']}-{mode}",
            "model": "sparse_mlp",
            "client": {"optimizer": {"learning_rate": 0.5}, "task_timeout_s": 30},
            "strategy": strategy,
            "privacy": {"secure_aggregation": secure},
            "stop": {"max_aggregations": aggregations, "max_hours": 0.05},
        }
    )


def wait_until_ended(deployment, fleet, job_id):
    until = time.monotonic() + 150
    while (row := deployment.jobs.get(job_id)).status not in {"finished", "stopped", "failed"}:
        fleet.check()
        assert time.monotonic() < until, (row, fleet.progress().counts)
        time.sleep(0.05)
    assert row.status == "finished", row
    return row


def outcomes_of(deployment, job_id):
    statement = select(TaskOutcomeRecord).where(TaskOutcomeRecord.job_id == job_id)
    with deployment.engine.connect() as connection:
        return connection.execute(statement).all()


def budget_of(deployment, job_id):
    statement = select(ReleaseBudgetRecord).where(ReleaseBudgetRecord.job_id == job_id)
    with deployment.engine.connect() as connection:
        return connection.execute(statement).one()


def slots_that_released(deployment, job_id):
    statement = select(ReleaseBudgetRecord.slot).where(ReleaseBudgetRecord.job_id == job_id)
    with deployment.engine.connect() as connection:
        return set(connection.execute(statement).scalars())


@pytest.mark.parametrize("mode", ["enclave", "masked"])
@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_devices_train_a_secure_job(deployment, fleet, measurement, strategy, mode):
    job = secure_job(measurement, strategy, mode, 4)
    job_id = submit(deployment, job, lambda _: None).job_id
    wait_until_ended(deployment, fleet, job_id)
    rows = outcomes_of(deployment, job_id)
    counted = [r for r in rows if r.outcome == "succeeded"]
    for version in range(1, 5):
        in_version = {r.client_id for r in counted if r.version_number == version}
        assert len(in_version) >= THRESHOLD
    assert {r.outcome for r in rows} <= {"succeeded", "over_committed", "stale", "interrupted"}
    assert budget_of(deployment, job_id).version == 3, "released for versions 0 to 3"


def process_of(server, role):
    processes = read_status(server.settings.home).processes
    return next(psutil.Process(p.pid) for p in processes if p.name == role)


def wait_for(condition, timeout_s=60.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def newest_version(deployment, job_id):
    newest = deployment.models.newest_of_job(job_id)
    return -1 if newest is None else newest.job_version


@pytest.mark.parametrize("role", ["enclave", "gateway", "coordinator"])
def test_a_process_killed_in_the_middle_costs_one_buffer_and_the_job_goes_on(
    server, deployment, fleet, measurement, role
):
    """Devices verify an enclave's new boot by themselves."""
    job_id = submit(deployment, secure_job(measurement, FEDBUFF, "enclave", 8), print).job_id
    wait_for(lambda: newest_version(deployment, job_id) >= 2)
    killed = process_of(server, role)
    killed.send_signal(signal.SIGKILL)
    wait_until_ended(deployment, fleet, job_id)
    wait_for(lambda: process_of(server, role).pid != killed.pid)
    rows = outcomes_of(deployment, job_id)
    counted = [row.task_id for row in rows if row.outcome == "succeeded"]
    assert len(counted) == len(set(counted))
    # What it held: of an enclave's earlier boot nobody knows what it let out.
    lost = [row for row in rows if row.outcome == "rejected"]
    assert {row.reason for row in lost} <= {"version_released", "already_released"}
    assert len(lost) <= FEDBUFF["buffer_size"] + IN_TRANSIT
    refused = [row.reason for row in rows if row.reason.startswith("attestation")]
    assert refused == [], "no device gave up"
    # The versions go on without a gap, and none was released for twice.
    numbers = [v.job_version for v in deployment.models.list_versions() if v.job_id == job_id]
    assert sorted(numbers) == list(range(len(numbers)))
    assert budget_of(deployment, job_id).version == max(numbers) - 1


def flint(home, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "flint", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "FLINT_HOME": str(home)},
    )


def test_anybody_can_see_what_a_phone_would_accept(
    server, deployment, fleet, measurement, tmp_path
):
    settings = server.settings
    job = secure_job(measurement, FEDBUFF, "enclave", 100_000)
    job_id = submit(deployment, job, print).job_id
    try:
        wait_for(lambda: newest_version(deployment, job_id) >= 0)

        def verify(name, allowed):
            block = job.privacy.secure_aggregation.model_dump()
            written = job.model_dump(exclude_none=True)
            written["privacy"]["secure_aggregation"] = block | {"allowed_measurements": [allowed]}
            path = tmp_path / f"{name}.yaml"
            path.write_text(json.dumps(written))
            return flint(
                settings.home,
                *("enclave", "verify", settings.gateway_address, "--job", path),
                *("--trust", settings.attestation_trust, "--ca", settings.ca_certificate, "--json"),
            )

        accepted = verify("right", measurement)
        assert accepted.returncode == 0, accepted.stderr
        found = json.loads(accepted.stdout)
        assert (found["measurement"], found["job_id"]) == (measurement, job_id)
        assert found["confidentiality"] == "none from root on the host"
        refused = verify("wrong", "00" * 32)
        assert refused.returncode == 2
        assert "FLN-2311" in refused.stderr
        assert "FLN-1818" in refused.stderr
        assert flint(settings.home, "enclave", "measure").stdout.strip() == measurement
        old = ScriptedDevice(settings, deployment.devices.create_enrolment_token(1, 600.0))
        old.runtime_version = 1
        policy = old.check_in().policy.policy_sha256
        answer = old.check_in(policy)
        assert not answer.HasField("task"), "it would send its update in the clear"
        assert answer.come_back_after_s > 1800
    finally:
        deployment.jobs.request_stop(job_id)
        wait_for(lambda: deployment.jobs.get(job_id).status == "stopped")


PATTERN = np.array([0.0123456789, -0.0314159265, 0.0271828182, 0.0161803398], np.float32)


class PlantingDevice(threading.Thread):
    """Hands in updates that hold a pattern, sealed as the runtime does."""

    def __init__(self, settings, token):
        super().__init__(daemon=True)
        self.device = ScriptedDevice(settings, token)
        self.stop = threading.Event()
        self.sent = 0
        model = get_model("sparse_mlp")
        flat = np.zeros(model.parameter_count, np.float32)
        # In a dense layer, where every update has values: a row of the table that no other device
        # touches would be in the aggregate as it is (docs/security.md).
        dense = 1024 * 180 + 180
        flat[dense : dense + 400 * PATTERN.size] = np.tile(PATTERN, 400)
        self.update = encode_update(
            model.parameters,
            unflatten(model.parameters, flat),
            num_examples=10,
            loss_before=0.7,
            loss_after=0.6,
        )

    def run(self):
        policy, wait_s = b"", 0.0
        while not self.stop.wait(wait_s):
            answer = self.device.check_in(policy)
            wait_s = min(1.0, answer.come_back_after_s)
            if answer.HasField("policy"):
                policy, wait_s = answer.policy.policy_sha256, 0.0
            if answer.HasField("task"):
                self.hand_in(answer.task)

    def hand_in(self, task):
        request = pb.AttestRequest(task_token=task.token, nonce=os.urandom(32))
        evidence = self.device.stub.Attest(request)
        enclave = VerifiedEnclave(
            evidence.enclave_key,
            ReleasePolicy.from_json(task.secure_aggregation.release_policy_json),
        )
        sealed_for = pb.SealedFor(
            task_id=task.task_id,
            job_id=task.job_id,
            device_id=self.device.device_id,
            base_version=task.base_version,
        )
        payload = seal_update(enclave, sealed_for, "com.example.mail", self.update, never_sent=True)
        response = self.device.upload(task, payload)
        self.sent += response.verdict == pb.UploadResponse.ACCEPTED


def memory_holds(process, pattern):
    """Whether any readable page of a process has the bytes; overlaps of reads are looked at too."""
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if not permissions.startswith("r") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                if pattern in memory.read(end - start):
                    return True
            except (OSError, ValueError, OverflowError):
                continue  # a page of a device, or one that is gone
    return False


def processes_that_hold(pattern, home):
    """Every process of a server but the enclave, and whether the bytes are in its memory."""
    status = read_status(home)
    roots = [(p.name, psutil.Process(p.pid)) for p in status.processes if p.name != "enclave"]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(home / "postgres" / "pgdata") in " ".join(process.cmdline()):
                roots.append(("postgres", process))
    found = []
    for role, root in roots:
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
                assert process.memory_full_info().swap == 0, "all of it can be looked at"
                found.append((role, memory_holds(process, pattern)))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="reads the memory of other processes")
@pytest.mark.parametrize("mode", ["enclave", "masked"])
def test_no_other_process_and_no_file_holds_a_single_update(
    server, deployment, fleet, measurement, mode
):
    """One update among others is searched for, while it is held and once the job has ended.

    Its aggregate is public by design. Where none of the few others in it has values, it shows the
    update as it was (docs/security.md), and that is so of a whole row of a layer whenever the unit
    before it is off in all of their records. So what is searched for is longer than three rows.
    """
    settings = server.settings
    token = deployment.devices.create_enrolment_token(10, 600.0)
    planter = PlantingDevice(settings, token)
    job = secure_job(measurement, FEDBUFF, mode, 3)
    pattern = np.tile(PATTERN, 16).tobytes()
    assert pattern in planter.update
    planter.start()
    job_id = submit(deployment, job, print).job_id
    wait_for(lambda: planter.sent >= 1)
    during = processes_that_hold(pattern, settings.home)
    planter.stop.set()
    planter.join()
    deployment.jobs.request_stop(job_id)
    wait_for(lambda: deployment.jobs.get(job_id).status in {"finished", "stopped"})
    after = processes_that_hold(pattern, settings.home)
    for found in (during, after):
        searched = {role for role, _ in found}
        assert {"superlink", "coordinator", "gateway", "postgres"} <= searched
        assert [role for role, holds in found if holds] == []
    files = [path for path in settings.home.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [str(path) for path in files if pattern in path.read_bytes()] == []


def test_two_gateways_each_have_an_enclave_and_each_lets_out_aggregates(measurement, tmp_path):
    """Which gateway is a device's home is chance: so many that neither has few, a low threshold."""
    at_least = 2
    with running_server(replace(PORTS, gateways=2)) as server:
        deployment = Deployment.attach(server.settings.home)
        with running_fleet(deployment, tmp_path, 2 * DEVICES) as fleet:
            job = secure_job(measurement, FEDBUFF | {"buffer_size": 10}, "enclave", 500, at_least)
            job_id = submit(deployment, job, print).job_id
            wait_for(lambda: slots_that_released(deployment, job_id) == {0, 1}, 150.0)
            fleet.check()
            deployment.jobs.request_stop(job_id)
            wait_for(lambda: deployment.jobs.get(job_id).status in {"finished", "stopped"})
        counted = [r for r in outcomes_of(deployment, job_id) if r.outcome == "succeeded"]
        assert len({r.task_id for r in counted}) == len(counted)
        for version in range(1, newest_version(deployment, job_id) + 1):
            assert len({r.client_id for r in counted if r.version_number == version}) >= at_least
