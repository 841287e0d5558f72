"""`flint availability build` on 50 million session rows: rows a second and memory, beside pandas.

A log is generated (1.2 million devices, seven days, four time zones, WiFi and battery known for a
fifth of the sessions) and built with nine criteria, gaps, lengths and facts of every client. Each
build is a fresh process; its memory is the kernel's ``VmHWM``, interpreter and libraries included,
as is its processor time (``cpu_s``, all threads), which, unlike rows a second, hardly depends on
what else runs on the machine.

Beside it, on the log's first rows (2 million by default), the same in pandas as one writes it with
the frame in memory: read, convert zones, judge, sort, group, join, lay out, count. It shares only
the coins' random stream, so spans and figures have to be equal, and are checked. Its build time is
compared with ours on the same file; rounds are interleaved, medians.

The limit: reading the columns alone, ``read_only_rows_per_s``, a pass of pyarrow over the file.

    python benchmarks/availability_build.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from simulation.availability.generated_log import (  # noqa: E402
    GeneratedLog,
    example_measurements,
    write_session_log,
)

CRITERIA = """
measurements: measurements.csv
device: {min_os_release: 2019-09, max_train_s: 120, max_memory_mb: 50}
state: {wifi: true, min_battery: 0.5, allowed_hours: "06:00-02:00"}
user: {min_account_age_days: 30, min_reputation: 0.5, min_hours_between_participations: 12}
sessions: {max_background_gap_s: 300, min_length_s: 60, max_length_s: 14400}
"""
LIMIT_MB = 4000


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("the kernel tells no VmHWM")


def ours(folder: Path, log: Path) -> dict[str, object]:
    from simulation.availability.build import build_availability
    from simulation.availability.criteria_file import load_criteria

    criteria = load_criteria(folder / "criteria.yaml")
    begun_s = time.perf_counter()
    trace, facts = folder / "ours.parquet", folder / "facts.parquet"
    found = build_availability([log], criteria, trace, facts=facts)
    return {"seconds": time.perf_counter() - begun_s, "figures": found.to_json()}


def with_pandas(folder: Path, log: Path) -> dict[str, object]:
    from benchmarks.availability_pandas import build

    begun_s = time.perf_counter()
    figures = build(log, folder / "measurements.csv", folder / "pandas.parquet")
    return {"seconds": time.perf_counter() - begun_s, "figures": figures}


def in_fresh_process(what: str, folder: Path, log: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--measure", what, str(folder), str(log)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, object] = json.loads(finished.stdout)
    return result


def read_only_s(log: Path) -> float:
    begun_s = time.perf_counter()
    with pq.ParquetFile(log) as file:
        for _ in file.iter_batches(batch_size=262_144):
            pass
    return time.perf_counter() - begun_s


def first_rows(log: Path, rows: int, path: Path) -> int:
    """Write the log's first row groups, some rows at least; return how many."""
    written = 0
    with pq.ParquetFile(log) as file, pq.ParquetWriter(path, file.schema_arrow) as writer:
        for number in range(file.num_row_groups):
            if written >= rows:
                break
            table = file.read_row_group(number)
            writer.write_table(table)
            written += table.num_rows
    return written


def require_equal(folder: Path, our: dict[str, object], their: dict[str, object]) -> None:
    """Spans to the bit, figures to rounding."""
    columns = ["client_id", "start_s", "end_s"]
    tables = [
        pq.read_table(folder / f"{who}.parquet", columns=columns) for who in ("ours", "pandas")
    ]
    by = [(column, "ascending") for column in columns]
    first, second = (table.sort_by(by).to_pydict() for table in tables)
    if first != second:
        raise SystemExit("the spans of pandas and ours differ")
    for key, value in their.items():
        pairs = zip(_numbers(our[key]), _numbers(value), strict=True)
        if any(abs(a - b) > 1e-9 * max(1.0, abs(a)) for a, b in pairs):
            raise SystemExit(f"{key} differs: {our[key]} and {value}")


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [float(value[key]) for key in sorted(value)]
    return [float(each) for each in value] if isinstance(value, list) else [float(str(value))]


def compare(folder: Path, log: Path, rounds: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {"ours": [], "pandas": []}
    peaks: dict[str, float] = {}
    cpu_s: dict[str, list[float]] = {"ours": [], "pandas": []}
    results: dict[str, dict[str, object]] = {}
    for _ in range(rounds):
        for who, measured_s in seconds.items():
            results[who] = in_fresh_process(who, folder, log)
            measured_s.append(float(str(results[who]["seconds"])))
            cpu_s[who].append(float(str(results[who]["cpu_s"])))
            peaks[who] = max(peaks.get(who, 0.0), float(str(results[who]["peak_mb"])))
    figures = {who: result["figures"] for who, result in results.items()}
    require_equal(folder, figures["ours"], figures["pandas"])  # type: ignore[arg-type]
    with pq.ParquetFile(log) as file:
        rows = file.metadata.num_rows
    median = {who: statistics.median(each) for who, each in seconds.items()}
    return {
        "rows": rows,
        "rounds": rounds,
        "rows_per_s": round(rows / median["ours"]),
        "pandas_rows_per_s": round(rows / median["pandas"]),
        "times_faster_than_pandas": round(median["pandas"] / median["ours"], 2),
        "cpu_s": round(statistics.median(cpu_s["ours"]), 2),
        "pandas_cpu_s": round(statistics.median(cpu_s["pandas"]), 2),
        "peak_mb": round(peaks["ours"]),
        "pandas_peak_mb": round(peaks["pandas"]),
        "results_equal": True,
    }


def measure(rows: int, subset: int, rounds: int, temporary: Path | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=temporary) as name:
        folder = Path(name)
        log, part = folder / "log.parquet", folder / "part.parquet"
        (folder / "criteria.yaml").write_text(CRITERIA)
        pyarrow.csv.write_csv(example_measurements(), folder / "measurements.csv")
        # 41.67 rows a client and week, as generated.
        settings = GeneratedLog(clients=-(-rows * 100 // 4165), foreground=False)
        begun_s = time.perf_counter()
        written = write_session_log(log, settings, seed=6)
        generated_s = time.perf_counter() - begun_s
        first_rows(log, subset, part)
        beside = compare(folder, part, rounds)
        read_s = read_only_s(log)
        whole = in_fresh_process("ours", folder, log)
        figures = whole["figures"]
        assert isinstance(figures, dict)
        seconds = float(str(whole["seconds"]))
        return {
            "figure": "availability_build",
            "pyarrow": pa.__version__,
            "pandas": version("pandas"),
            "rows": written,
            "clients": figures["clients"],
            "log_mb": round(log.stat().st_size / 1e6),
            "generated_rows_per_s": round(written / generated_s),
            "seconds": round(seconds, 1),
            "cpu_s": round(float(str(whole["cpu_s"])), 1),
            "rows_per_s": round(written / seconds),
            "read_only_rows_per_s": round(written / read_s),
            "peak_mb": round(float(str(whole["peak_mb"]))),
            "limit_mb": LIMIT_MB,
            "within_limit": float(str(whole["peak_mb"])) < LIMIT_MB,
            "spans": figures["sessions_out"],
            "criteria": len(figures["thresholds"]),
            "share_all": figures["share_all"],
            "beside_pandas": beside,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--pandas-rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temporary", type=Path, help="folder for some GB of files")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        who, folder, log = options.measure
        result = {"ours": ours, "pandas": with_pandas}[who](Path(folder), Path(log))
        print(json.dumps(result | {"peak_mb": peak_mb(), "cpu_s": time.process_time()}))
        return
    print(json.dumps(measure(options.rows, options.pandas_rows, options.rounds, options.temporary)))


if __name__ == "__main__":
    main()
