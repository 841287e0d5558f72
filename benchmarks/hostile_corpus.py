r"""What hostile devices achieve on a real server: nothing; and what one may claim of the model.

The corpus (`tests/faults/hostile_corpus.py`) is sent by enrolled devices that lease tasks like any
other, over TLS, in the middle of synchronous rounds of honest devices, on the whole server:
gateway, coordinator, Postgres. Every update of an honest device moves one parameter of its own, so
the model itself tells whether a round was hurt: each version is compared, parameter by parameter,
with the mean of the honest updates in it. A round counts as hurt when it was abandoned, or any
parameter of its version is off by more than 1e-6. Each attack must be refused with its number.

The share: 999 honest clients of 10 to 200 examples and one that claims 10^9, folded by the server's
own aggregator under example weighting with ``max_examples: 200``. Once as jobs are by default: the
claim is refused. Once with the limit on claims lifted as far as it goes: the client's share of the
aggregate is read off the sum, and may be no more than the cap's, 200 of all examples weighed.

    python benchmarks/hostile_corpus.py
"""

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from killable import bare_server, wait_for

from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_update, unflatten
from flint.deployment import Deployment
from flint.submission import submit
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.update_gate.rejections import Rejection

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.hostile_corpus import CORPUS, Case, borrowed
from tests.faults.one_hot_devices import MODEL, OneHotFleet, one_hot_devices, one_hot_job
from tests.server.gateway.scripted_device import ScriptedDevice

HONEST = 14
ATTACKERS = 3
ROUNDS = 8
CLIENTS, CAP, CLAIM = 1000, 200, 10**9
_TOLERANCE = 1e-6
_TOO_LATE = ("OVER_COMMITTED", "STALE")


class Attacker(threading.Thread):
    """Leases tasks and answers each with the next case of the corpus."""

    def __init__(self, device: ScriptedDevice, cases: "queue.Queue[Case]") -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.got: dict[str, int | str] = {}
        self._device = device
        self._cases = cases

    def run(self) -> None:
        """Until told to stop, or until there is nothing left to try."""
        policy = b""
        while not self.stop.is_set():
            answer = self._device.check_in(policy)
            if answer.HasField("policy"):
                policy = answer.policy.policy_sha256
                continue
            if answer.HasField("task"):
                try:
                    case = self._cases.get_nowait()
                except queue.Empty:
                    return
                answered = self._attack(case, answer.task)
                if answered in _TOO_LATE:  # its round was over: it is tried in another
                    self._cases.put(case)
                else:
                    self.got[case.name] = answered
            self.stop.wait(min(answer.come_back_after_s, 0.7))

    def _attack(self, case: Case, task: pb.Task) -> int | str:
        try:
            response = case.attack(self._device, task)
        except grpc.RpcError as error:
            return str(error.code().name)
        if response.verdict != pb.UploadResponse.REJECTED:
            return pb.UploadResponse.Verdict.Name(response.verdict)
        return response.reason_code


def job_with(codec: str) -> Job:
    """Rounds of the one-hot job, with the codec that makes some cases possible."""
    block = {"name": codec} | ({"fraction": 0.2} if codec == "top_k" else {})
    base = one_hot_job("fedavg", ROUNDS)
    described = json.loads(base.to_json())
    described["client"]["compression"] = block
    described["privacy"] = {"robustness": {"max_update_norm": 100.0}}
    return Job.model_validate(described)


def hurt_rounds(deployment: Deployment, job_id: str, fleet: OneHotFleet) -> tuple[int, int]:
    """Rounds of a job, and how many of them hold anything but the mean of honest updates."""
    from tests.faults.conftest import Outcome, World

    world = World(None, deployment, "", wait_for)
    outcome = Outcome(world, job_id, fleet)
    hurt = outcome.counts["failed: round_abandoned"]
    for number in range(1, len(outcome.versions)):
        counted = [row for row in outcome.rows.values() if row.version_number == number]
        expected = np.zeros(MODEL.parameter_count)
        for row in counted:
            expected[fleet.number_of[row.task_id]] += 1 / len(counted)
        moved = outcome.weights[number].astype(np.float64) - outcome.weights[number - 1]
        hurt += bool(np.abs(moved - expected).max() > _TOLERANCE)
    return len(outcome.versions) - 1, hurt


def attack_server() -> dict[str, object]:
    rounds = hurt = 0
    got: dict[str, int | str] = {}
    sent = list(CORPUS)
    with bare_server() as server:
        deployment = Deployment.attach(server.home)
        token = deployment.devices.create_enrolment_token(10_000, 3600)
        settings = deployment.settings
        devices = [ScriptedDevice(settings, token) for _ in range(ATTACKERS + 1)]
        sent.append(borrowed(devices[-1]))
        for codec in ("none", "top_k", "int8"):
            cases: queue.Queue[Case] = queue.Queue()
            for case in sent:
                if case.codec == codec:
                    cases.put(case)
            while not cases.empty():
                attackers = [Attacker(device, cases) for device in devices[:ATTACKERS]]
                with one_hot_devices(settings, token, HONEST) as fleet:
                    job_id = submit(deployment, job_with(codec), lambda _: None).job_id
                    for attacker in attackers:
                        attacker.start()
                    wait_for(lambda j=job_id: deployment.jobs.get(j).status == "finished", 120.0)  # type: ignore[misc]
                for attacker in attackers:
                    attacker.stop.set()
                    attacker.join()
                    got |= attacker.got
                one, bad = hurt_rounds(deployment, job_id, fleet)
                rounds, hurt = rounds + one, hurt + bad
        for device in devices:
            device.close()
    wrong = {
        case.name: got.get(case.name, "not sent")
        for case in sent
        if got.get(case.name) != (case.code if isinstance(case.code, int) else case.code.name)
    }
    by_code = Counter(str(code) for code in got.values())
    return {
        "cases": len(sent),
        "classes": len({case.family for case in sent}),
        "refused_with_their_code": len(sent) - len(wrong),
        "not_so": wrong,
        "refusals_by_code": dict(sorted(by_code.items())),
        "rounds": rounds,
        "rounds_hurt": hurt,
    }


def share_of_the_greedy(max_claimed_examples: int | None, seed: int) -> dict[str, object]:
    """What one client of a thousand that claims 10^9 examples is of the aggregate."""
    robustness = {} if max_claimed_examples is None else {"max_claimed_examples": CLAIM}
    job = Job.model_validate(
        {
            "name": "share",
            "model": MODEL.name,
            "client": {"optimizer": {"learning_rate": 0.1}, "max_records": CAP},
            "strategy": {
                "name": "fedavg",
                "cohort_size": CLIENTS,
                "weighting": "examples",
                "max_examples": CAP,
            },
            "stop": {"max_aggregations": 1},
            "privacy": {"robustness": robustness},
        }
    )
    aggregator = MeanAggregator()
    aggregator.open("j-share", job, MODEL)
    honest_examples = np.random.default_rng(seed).integers(10, CAP + 1, CLIENTS - 1)
    answer: UpdateReference | Rejection | None = None
    for client, examples in enumerate([*map(int, honest_examples), CLAIM]):
        flat = np.zeros(MODEL.parameter_count, np.float32)
        flat[client] = 1.0
        payload = encode_update(
            MODEL.parameters,
            unflatten(MODEL.parameters, flat),
            num_examples=examples,
            loss_before=0.7,
            loss_after=0.6,
        )
        envelope = Envelope(f"t-{client}", f"d-{client}", 0, b"", 1.0, 0, len(payload))
        answer = aggregator.fold(envelope, payload)
    (partial,) = aggregator.reduce(Release("r-1"))
    share = float(partial.total[CLIENTS - 1]) / partial.weight
    cap = CAP / (int(honest_examples.sum()) + CAP)
    refused = int(answer.reason) if isinstance(answer, Rejection) else None
    return {"refused_with": refused, "share": round(share, 6), "cap": round(cap, 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun_s = time.monotonic()
    attacked = attack_server()
    figures = {
        "figure": "hostile_corpus",
        **attacked,
        "greedy_client_of_1000": {
            "by_default": share_of_the_greedy(None, options.seed),
            "claims_not_limited": share_of_the_greedy(CLAIM, options.seed),
        },
        "seconds": round(time.monotonic() - begun_s),
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
