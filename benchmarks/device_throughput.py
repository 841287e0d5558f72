"""Task cycles per second of one fleet process: 50 identities, 10 records x 3 epochs, sparse_mlp.

One cycle is a check-in, a lease, a training and an upload of 0.75 MB over TLS, with everything the
device keeps on disk in between. The gateway runs in this process and its CPU time is not counted:
``cycles_per_core_s`` is finished tasks per CPU second of the fleet process, start-up and enrolment
included; ``cycles_per_s`` is by the wall clock, waits for the gateway included.

Physical limit: LiteRT's arithmetic alone, ``train_s`` a task.

    python benchmarks/device_throughput.py
"""

import json
import tempfile
from pathlib import Path

from device_memory import GenerousGateway, fill_examples, last_report, serving

DEVICES = 50
TASKS = 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for number in range(DEVICES):
            fill_examples(home / "fleet" / f"d{number:03}" / "examples.sqlite", 10, number)
        with serving(GenerousGateway(local_epochs=3), home) as reach:
            fleet = ("device_runtime.fleet_process", "--devices", str(home / "fleet"))
            report = last_report(*fleet, "--tasks", str(TASKS), *reach)
    figures = {
        "figure": "device_throughput",
        "model": "sparse_mlp",
        "devices": DEVICES,
        "tasks": report["finished_tasks"],
        "cycles_per_core_s": round(report["finished_tasks"] / report["cpu_s"], 1),
        "cycles_per_s": round(report["finished_tasks"] / report["elapsed_s"], 1),
        "aim_cycles_per_core_s": 60,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
