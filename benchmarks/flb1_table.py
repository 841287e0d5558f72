r"""FLB-1's whole table: run every row, and say what must be, what is aimed at and what was reached.

Each row is a result of its own in ``benchmarks/results/``, taken by `record.py`. Environments of
peers are made first, so that no row waits for pip. A row that fails leaves its last result as it
is; the others are still run.

    python benchmarks/flb1_table.py                      # run all, about a quarter of an hour
    python benchmarks/flb1_table.py --only b_pfl b_flower
    python benchmarks/flb1_table.py --print              # the table, from the results there are
    python benchmarks/flb1_table.py --print --into docs/simulation-speed.md
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flb1_peers import PEERS
from peer_environment import PeerNotInstalled, peer_python

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SHARE = ("ways", "chosen", "share_of_peak")
MARKS = ("<!-- table by benchmarks/flb1_table.py -->", "<!-- end of table -->")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        name: Of its result, after ``flb1_``; with ``is_own`` the whole of it, taken elsewhere.
        command: Benchmark and its arguments.
        figure: Keys of the figure in the result, one inside the other.
        must: Least that counts as reached; with ``is_most`` the most. None: it is told, no more.
        aim: Better than that; None if nobody has said.
        whole: Key of the same for the whole machine.
    """

    name: str
    title: str
    command: str
    figure: tuple[str, ...]
    must: float | None
    aim: float | None
    unit: str = "x"
    whole: str | None = None
    is_own: bool = False
    is_most: bool = False

    @property
    def path(self) -> Path:
        """Of its result."""
        return RESULTS / f"{self.name if self.is_own else f'flb1_{self.name}'}.json"


def _beside(model: str, peer: str, must: float, aim: float) -> Row:
    name, title = f"{model.lower()}_{peer}", f"kernel, FLB-{model} beside {peer}"
    command = f"flb1 --model {model} --against {peer}"
    return Row(name, title, command, ("ratio_per_core",), must, aim, whole="ratio_whole_machine")


def _zoo(model: str, must: float, aim: float) -> Row:
    title = f"zoo {model} beside naive"
    command = f"flb1_zoo --model {model}"
    return Row(f"zoo_{model.lower()}", title, command, ("ratio_per_core",), must, aim)


def _share(model: str) -> Row:
    title = f"share of the float32 peak, FLB-{model}"
    command = f"flb1_shares --model {model}"
    return Row(f"shares_{model.lower()}", title, command, SHARE, None, None, "%")


def _system_only(
    title: str, *figure: str, must: float, aim: float | None, unit: str, most: bool
) -> Row:
    return Row("system_only", title, "system_only", figure, must, aim, unit, None, True, most)


ROWS = (
    _beside("B", "naive", 5, 8),
    _beside("B", "pfl", 7, 12),
    _beside("B", "fedjax", 6, 11),
    _beside("B", "flsim", 45, 75),
    _beside("B", "flower", 150, 250),
    _beside("A", "naive", 50, 100),
    _beside("A", "pfl", 80, 160),
    _beside("A", "fedjax", 55, 110),
    _beside("A", "flower", 1000, 2500),
    _beside("C", "naive", 3, 5),
    Row(
        *("b_batch_5", "FLB-B, batches of 5, beside naive"),
        "flb1 --model B --batch-size 5 --one-core",
        *(("ratio_per_core",), 2.5, 5),
    ),
    Row(
        *("b_epochs_3", "FLB-B, three local epochs, beside naive"),
        "flb1 --model B --local-epochs 3 --one-core",
        *(("ratio_per_core",), 2.5, 5),
    ),
    Row(
        *("simulation_b", "a whole dry-run by the kernel alone, FLB-B"),
        "flb1_simulation --model B",
        *(("share_of_kernel",), 0.8, 0.95, "%"),
    ),
    Row(
        *("simulation_a", "a whole dry-run by the kernel alone, FLB-A"),
        "flb1_simulation --model A",
        *(("share_of_kernel",), 0.8, 0.95, "%"),
    ),
    Row(
        *("simulation_a_fedbuff", "the same of FedBuff in groups of 10, by these groups' kernel"),
        "flb1_simulation --model A --strategy fedbuff",
        *(("share_of_kernel",), None, None, "%"),
    ),
    Row(
        *("groups_b", "groups of 10 by cohorts of 100, FLB-B", "flb1_groups --model B"),
        *(("ratio_to_the_cohort",), 0.85, 0.95, "%"),
    ),
    Row(
        *("groups_a", "groups of 10 by cohorts of 100, FLB-A", "flb1_groups --model A"),
        *(("ratio_to_the_cohort",), 0.75, 0.95, "%"),
    ),
    Row(
        *("processes_b", "two processes by one, FLB-B", "flb1_processes --model B"),
        *(("speedup_wall",), 1.8, 1.95),
    ),
    Row(
        *("processes_a", "two processes by one, FLB-A", "flb1_processes --model A"),
        *(("speedup_wall",), 1.8, 1.95),
    ),
    *(_share(model) for model in "ABC"),
    _zoo("C", 2, 4),
    _zoo("D", 1.3, 1.6),
    _zoo("E", 2, 4),
    _system_only(
        *("system-only: events a second", "events", "engine_events_per_cpu_s"),
        **{"must": 10e6, "aim": 30e6, "unit": "", "most": False},
    ),
    _system_only(
        *("the same, a strategy in Python", "events", "asking_events_per_cpu_s"),
        **{"must": 200e3, "aim": None, "unit": "", "most": False},
    ),
    _system_only(
        *("system-only: 16.4 M clients over a week, seconds", "week", "engine_cpu_s"),
        **{"must": 60, "aim": 10, "unit": " s", "most": True},
    ),
    _system_only(
        *("system-only: its memory", "week", "most_resident_mb"),
        **{"must": 2000, "aim": 1000, "unit": " MB", "most": True},
    ),
    _system_only(
        *("1 M clients: start to first aggregation", "million", "start_to_first_aggregation_cpu_s"),
        **{"must": 5, "aim": 2, "unit": " s", "most": True},
    ),
)


def found(result: Any, keys: tuple[str, ...]) -> float | None:  # noqa: ANN401 - JSON
    """The figure under keys one inside the other; None if it is not there."""
    for key in keys:
        if not isinstance(result, dict) or key not in result:
            return None
        result = result[key]
    return float(result)


def shown(value: float | None, unit: str) -> str:
    """As a reader wants it: three digits, thousands apart."""
    if value is None:
        return "-"
    if unit == "%":
        return f"{value:.0%}"
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits}{unit}"


def reading_of(row: Row, result: Any) -> str:  # noqa: ANN401 - JSON
    """Whether a result reaches what its row asks for, in a word."""
    value = found(result, row.figure)
    if value is None:
        return "not measured"
    if str(result.get("peer", "ran")) != "ran":
        return str(result["peer"])
    if row.must is None:
        return ""
    reaches = (lambda wanted: value <= wanted) if row.is_most else (lambda wanted: value >= wanted)
    if row.aim is not None and reaches(row.aim):
        return "aim"
    return "must" if reaches(row.must) else "**below**"


def table(results: dict[Row, Any]) -> str:
    """Markdown: a line for each row of results that were read, None where there is none."""
    lines = ["| FLB-1 | must | aim | reached | whole machine | |", f"|{' --- |' * 6}"]
    for row, result in results.items():
        whole = None if row.whole is None else found(result, (row.whole,))
        cells = [
            row.title,
            *(shown(value, row.unit) for value in (row.must, row.aim, found(result, row.figure))),
            "" if whole is None else shown(whole, row.unit),
            reading_of(row, result),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put_into(document: str, text: str) -> str:
    """A document with the table between its two marks.

    Raises:
        ValueError: If there are no marks.
    """
    begin, end = document.find(MARKS[0]), document.find(MARKS[1])
    if begin < 0 or end < begin:
        raise ValueError(f"the document has no {MARKS[0]} ... {MARKS[1]}")
    return f"{document[: begin + len(MARKS[0])]}\n\n{text}\n\n{document[end:]}"


def run(rows: list[Row], peers_folder: Path | None) -> None:
    """Take the results of rows, one after the other."""
    for peer in PEERS:
        if peer != "naive" and any(f"--against {peer}" in row.command for row in rows):
            try:
                peer_python(peer, None if peers_folder is None else peers_folder / peer)
            except PeerNotInstalled as error:
                print(f"{peer} cannot be installed: {error}", file=sys.stderr)
    begun_s = time.monotonic()
    for number, row in enumerate(rows):
        print(f"{number + 1} of {len(rows)}: {row.title}", file=sys.stderr, flush=True)
        script, *arguments = row.command.split()
        if "--against" in arguments and peers_folder is not None:
            arguments += ["--peers-folder", str(peers_folder)]
        command = [sys.executable, str(HERE / "record.py"), "--as", row.path.stem, script]
        done = subprocess.run([*command, *arguments], check=False)
        took = f"{time.monotonic() - begun_s:.0f} s so far"
        print(took if done.returncode == 0 else f"FAILED; {took}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    own = [row for row in ROWS if not row.is_own]
    parser.add_argument("--only", nargs="+", choices=[row.name for row in own], help="rows to run")
    parser.add_argument("--print", dest="is_print", action="store_true", help="run nothing")
    parser.add_argument("--peers-folder", type=Path, help="that has, or is to have, peers")
    parser.add_argument("--into", type=Path, help="document that has the table between marks")
    options = parser.parse_args()
    if not options.is_print:
        run(
            [r for r in own if options.only is None or r.name in options.only], options.peers_folder
        )
    results = {}
    for row in ROWS:
        there = row.path.exists()
        results[row] = json.loads(row.path.read_text())["result"] if there else None
    text = table(results)
    print(text)
    if options.into is not None:
        options.into.write_text(put_into(options.into.read_text(), text))


if __name__ == "__main__":
    main()
