r"""Run one benchmark and keep its figure in ``benchmarks/results/``, with what a reader must know.

    python benchmarks/record.py aggregation
    python benchmarks/record.py --as demo_quality_msg_irc demo_quality --target 0.55 --data FILE ...

Beside the benchmark's own JSON line stand the command, the day, the versions of what it measured
and the machine. Paths in the command are cut to file names: they say nothing elsewhere.
"""

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MEASURED = (
    *("flwr", "ai-edge-litert", "numpy", "grpcio", "protobuf", "SQLAlchemy", "scikit-learn"),
    *("cryptography", "cbor2", "tensorflow-cpu", "torch", "duckdb", "pyarrow"),
)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--as", dest="name", help="name of the result; default: the benchmark's")
    parser.add_argument("benchmark", help="file in benchmarks/, without .py")
    options, arguments = parser.parse_known_args()
    script = FOLDER / f"{options.benchmark}.py"
    load_before = os.getloadavg()[0]
    # Oracles and hostile devices of some figures are those of the tests, which are not installed.
    searched = os.pathsep.join(filter(None, (str(FOLDER.parent), os.environ.get("PYTHONPATH"))))
    finished = subprocess.run(
        [sys.executable, str(script), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": searched},
    )
    if finished.returncode:
        sys.exit(finished.returncode)  # it has said why
    shown = [Path(a).name if "/" in a else a for a in arguments]
    record = {
        "command": " ".join(["python", f"benchmarks/{script.name}", *shown]),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gib": memory_gib(),
            "load_before": round(load_before, 2),
        },
        "versions": {"python": platform.python_version()} | {p: version(p) for p in MEASURED},
        "result": json.loads(finished.stdout),
    }
    path = FOLDER / "results" / f"{options.name or options.benchmark}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["result"]))


if __name__ == "__main__":
    main()
