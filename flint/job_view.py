"""A job as a person or a program watches it."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from feature_catalog.jobs import JobQueue, JobRow

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ENDED = frozenset({"finished", "stopped", "failed"})
_POLL_S = 0.5
_MAX_REASONS = 12


def describe(row: JobRow) -> dict[str, Any]:
    """A job as JSON; its progress's keys lie beside its own."""
    devices = _devices(row)
    return {
        "job_id": row.job_id,
        "name": row.name,
        "status": row.status,
        "detail": row.detail,
        # A string: run ids go beyond what JavaScript's and jq's numbers hold exactly.
        "flower_run_id": None if row.flower_run_id is None else str(row.flower_run_id),
        "epoch": row.epoch,
        "submitted_at": _iso(row.submitted_at),
        "started_at": _iso(row.started_at),
        "finished_at": _iso(row.finished_at),
        **({} if devices is None else {"devices": devices}),
        **row.progress,
    }


def follow_job(
    queue: JobQueue,
    job_id: str,
    *,
    as_json: bool = False,
    on_change: Callable[[JobRow], None] | None = None,
) -> JobRow:
    """Watch a job until it ends; returns its last state.

    On a terminal a live panel, else a line whenever the version changed; with ``as_json`` a JSON
    line whenever anything changed. ``on_change`` replaces all of these.

    Raises:
        UnknownJob: If there is no such job.
    """
    row = queue.get(job_id)
    if on_change is not None:
        return _watch(queue, row, on_change)
    if as_json:
        return _watch(queue, row, lambda new: print(json.dumps(describe(new)), flush=True))
    if sys.stdout.isatty():
        return _watch_live(queue, row)
    return _watch(queue, row, VersionLines(sys.stdout))


def print_job(row: JobRow) -> None:
    """One job on stdout, once."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    Console(width=width, highlight=False, emoji=False).print(render(row))


def render(row: JobRow) -> "RenderableType":
    """A job as a panel: state, then outcomes and their reasons."""
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    progress = row.progress
    facts = Table.grid(padding=(0, 3))
    for label, value in (
        ("status", row.status + (f" - {row.detail}" if row.detail else "")),
        ("version", _text(progress.get("version"))),
        ("metric", _metric(progress)),
        ("updates", f"{_text(progress.get('updates'))} ({_rate(progress)})"),
        ("in flight", _text(progress.get("in_flight"))),
        ("held", _text(progress.get("held"))),
        ("running for", _duration(progress.get("elapsed_s"))),
    ):
        facts.add_row(f"[dim]{label}[/]", value)
    counts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    counts.add_column("outcome or reason")
    counts.add_column("tasks", justify="right")
    for name, count in progress.get("outcomes", {}).items():
        if count:
            counts.add_row(name, f"{count:,}")
    reasons = sorted(progress.get("reasons", {}).items(), key=lambda item: -item[1])
    for name, count in reasons[:_MAX_REASONS]:
        counts.add_row(f"  [dim]{name}[/]", f"[dim]{count:,}[/]")
    tables = [
        table for table in (counts, _sessions(progress), _device_models(row)) if table.row_count
    ]
    body = Group(facts, *tables)
    return Panel(body, title=f"{row.name} [dim]{row.job_id}[/]", title_align="left", expand=False)


def _sessions(progress: Mapping[str, Any]) -> "Table":
    """How far devices' attempts came, the most frequent first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("session")
    table.add_column("attempts", justify="right")
    table.add_column("share", justify="right")
    sessions: Mapping[str, int] = progress.get("sessions", {})
    total = sum(sessions.values())
    by_count = sorted(sessions.items(), key=lambda item: (-item[1], item[0]))
    for shape, count in by_count[:_MAX_REASONS]:
        table.add_row(Text(shape), f"{count:,}", f"{count / total:.1%}")
    return table


def _devices(row: JobRow) -> dict[str, Any] | None:
    """Which devices a job admits; only a job that says so is parsed for it."""
    if json.loads(row.job_json).get("participation", {}).get("device") is None:
        return None
    from flint.measured_devices import describe_devices
    from server.job import Job

    return describe_devices(Job.model_validate_json(row.job_json))


def _device_models(row: JobRow) -> "Table":
    """What the device models a job knows of were measured to cost, the cheapest first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("device model")
    for name in ("train s", "memory MB"):
        table.add_column(name, justify="right")
    table.add_column("")
    measured = (_devices(row) or {}).get("measured", {})
    by_cost = sorted(measured.items(), key=lambda item: (item[1]["train_s"], item[0]))
    for name, found in by_cost[:_MAX_REASONS]:
        memory_mb = found["memory_mb"]
        table.add_row(
            Text(name + (" (emulated)" if found["emulated"] else "")),
            f"{found['train_s']:.3g}",
            "-" if memory_mb is None else f"{memory_mb:.1f}",
            "admitted" if found["refused"] is None else found["refused"].replace("_", " "),
        )
    if len(by_cost) > _MAX_REASONS:
        table.add_row(f"[dim]{len(by_cost) - _MAX_REASONS} more: --json lists them[/]", "", "", "")
    return table


def _watch(queue: JobQueue, row: JobRow, on_change: Callable[[JobRow], None]) -> JobRow:
    on_change(row)
    while row.status not in ENDED:
        time.sleep(_POLL_S)
        new = queue.get(row.job_id)
        if new != row:
            on_change(new)
        row = new
    return row


def _watch_live(queue: JobQueue, row: JobRow) -> JobRow:
    from rich.live import Live

    with Live(render(row), refresh_per_second=4) as live:
        return _watch(queue, row, lambda new: live.update(render(new)))


class VersionLines:
    """A line whenever status, version or metric changed, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._said: tuple[object, ...] = ()

    def __call__(self, row: JobRow) -> None:
        """Say what is new."""
        progress = row.progress
        key = (row.status, progress.get("version"), progress.get("metric_version"))
        if key == self._said:
            return
        self._said = key
        parts = [
            row.status,
            f"version {_text(progress.get('version'))}",
            f"metric {_metric(progress)}",
            f"updates {_text(progress.get('updates'))}",
            _rate(progress),
            f"in flight {_text(progress.get('in_flight'))}",
            ", ".join(f"{k} {v}" for k, v in progress.get("outcomes", {}).items() if v),
            row.detail or "",
        ]
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)


def _metric(progress: Mapping[str, Any]) -> str:
    metric = progress.get("metric")
    if metric is None:
        return "-"
    at = progress.get("metric_version")
    return f"{metric:.4f}" + (f" (version {at})" if at is not None else "")


def _rate(progress: Mapping[str, Any]) -> str:
    rate = progress.get("updates_per_s")
    return "-/s" if rate is None else f"{rate:.1f}/s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _text(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _iso(moment: Any) -> str | None:  # noqa: ANN401 - a datetime, or None
    return moment.isoformat() if moment is not None else None
