"""FLINT's Table 5 and Fig. 4: what models A to E cost an emulated fleet of 27 and the host.

What is measured: one local epoch of 5,000 generated records on the device engine, batches of 20,
one thread; of each device three repeats in fresh processes, passes repeated until two seconds are
measured. How: `android_bench` as `flint bench run` uses it. A profile is a share of one core, held
by a closed loop on the worker's CPU time; runs more than 20 % off their share are thrown away and
tried again, and the shares asked for and reached stand beside each time. Workers that run at once
are pinned, and share a core only while their shares together leave a quarter of it idle.

What it does not tell: no phone was measured. Shares are quantiles of a public benchmark's scores,
so the spread over the fleet is that of phones, and the scale is this machine's. Ours and the
paper's columns differ besides by what its models are (it publishes sizes, not layers) and by its
engine.

The limit is arithmetic: a record of multitask_mlp takes three times two operations a parameter, 5.5
MFLOP, so 5,000 take 28 GFLOP, or a second at some 30 GFLOP/s of one core; text_cnn's 38 windows of
each width make it ten times as much.

    python benchmarks/bench_fleet.py [--repeats 3] [--models tiny_mlp,...] [--devices emulated]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from android_bench.devices.select import SelectContext, select_groups
from android_bench.harness import run_benchmark
from android_bench.measured import as_measurement
from android_bench.packing import load_model
from android_bench.protocol import BenchResult
from android_bench.run_folder import open_run_folder
from flint.bench_table import TableRow, row_as_json, rows_of
from flint.reports.bench_page import training_time_figure
from flint.reports.chart import drawing
from modeling.zoo import MODELS

RESULTS = Path(__file__).resolve().parent / "results"


def measure(model: str, folder: Path, options: argparse.Namespace) -> tuple[list[TableRow], Any]:
    run = open_run_folder(
        folder / model,
        load_model(model),
        resume=True,
        records=options.records,
        repeats=options.repeats,
    )
    begun_s = time.perf_counter()
    # Back ends one after the other: the host is measured while nothing else of ours runs.
    answers: list[BenchResult] = []
    failures: dict[str, str] = {}
    repeats_failed = 0
    for devices in options.devices.split(","):
        outcomes = run_benchmark(run, select_groups(devices, SelectContext(timeout_s=1800.0)))
        answers += outcomes.results
        failures |= outcomes.failures
        repeats_failed += sum(len(reasons) for reasons in outcomes.failed_repeats.values())
    rows = rows_of(model, [m for m in map(as_measurement, answers) if m.ok])
    return rows, {
        "rows": [row_as_json(row) for row in rows],
        "duty": {
            answer.device.device_model: {
                "requested": answer.runs[0].requested_duty,
                "achieved": [round(run.achieved_duty or 0.0, 4) for run in answer.runs],
                "attempts": [run.attempts for run in answer.runs],
            }
            for answer in answers
            if answer.device.emulated and answer.runs
        },
        "devices_failed": failures,
        "repeats_failed": repeats_failed,
        "measured_in_s": round(time.perf_counter() - begun_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--devices", default="host,emulated")
    parser.add_argument("--folder", type=Path, help="raw results are kept, and gone on with, here")
    parser.add_argument("--plot", type=Path, default=RESULTS / "bench_fleet.svg")
    options = parser.parse_args()
    rows: list[TableRow] = []
    models: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="flint-bench-fleet-") as temporary:
        for model in options.models.split(","):
            of_model, models[model] = measure(model, options.folder or Path(temporary), options)
            rows += of_model
    with drawing():
        figure = training_time_figure([row for row in rows if row.train_s])
        figure.savefig(options.plot, format="svg", facecolor="white", metadata={"Date": None})
    print(
        json.dumps(
            {
                "figure": "bench_fleet",
                "records": options.records,
                "repeats": options.repeats,
                "emulated": "27 shares of a core; the spread of phones, the scale of this machine",
                "models": models,
            }
        )
    )


if __name__ == "__main__":
    main()
