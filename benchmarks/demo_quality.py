r"""Model quality, updates and seconds to a target: `flint demo` with both strategies on one file.

Compared on clients that never train: AUPRC of a FedBuff and of a FedAvg job (the best of the
versions the coordinator measured and stored), of central logistic regression on the same features,
and of guessing (chance, the share of positives). Every training client in the file is one enrolled
device with its own records; server, devices, TLS and update gate are those of production.

The limit: what the model reaches with all data in one place. Updates and seconds to the target are
read off the stored versions, seconds by the coordinator's clock from the job's start; they include
evaluation and depend on the machine, which is named beside them.

    python benchmarks/demo_quality.py                      # generated click data
    python benchmarks/demo_quality.py --target 0.55 --data FILE.parquet --client-field client_id \
        --label-field label --text-field text --exclude-field date

All options but ``--target`` are those of `flint demo`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

GENERATED_TARGET = 0.5


def run_demo(arguments: list[str], target: float) -> dict[str, object]:
    command = [sys.executable, "-m", "flint", "demo", "--json", "--target", str(target)]
    finished = subprocess.run(
        [*command, *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if finished.returncode:
        sys.exit(finished.returncode)  # it has said why
    result: dict[str, object] = json.loads(finished.stdout)
    return result


def figure_of(run: dict[str, object]) -> dict[str, object]:
    keys = ("updates", "updates_to_target", "seconds", "seconds_to_target", "versions", "outcomes")
    metric = run["metric"]
    return {"auprc": round(metric["value"], 4), **{key: run[key] for key in keys}}  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--target", type=float, default=GENERATED_TARGET)
    options, arguments = parser.parse_known_args()
    result = run_demo(arguments, options.target)
    runs: list[dict[str, object]] = result["runs"]  # type: ignore[assignment]
    data = arguments[arguments.index("--data") + 1] if "--data" in arguments else "generated clicks"
    figures = {
        "figure": "demo_quality",
        "data": Path(data).name,
        "target_auprc": options.target,
        "central_auprc": round(runs[0]["metric"]["central"], 4),  # type: ignore[index]
        "chance_auprc": round(float(runs[0]["chance"]), 4),  # type: ignore[arg-type]
        "devices": runs[0]["devices"],
        **{str(run["strategy"]): figure_of(run) for run in runs},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "options": [a for a in arguments if a != data],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
