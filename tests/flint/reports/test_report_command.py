"""``flint report`` as it is typed: one file, its path, and a sentence for every mistake."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flint.catalog_session import open_catalog
from flint.reports.output_file import UnwritableReport, check_writable, write_page
from flint.reports.run_data import COLUMNS
from tests.flint.reports.synthetic_runs import plausible_run
from tests.flint.reports.test_run_data import NEW


def flint(*arguments: object, home: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flint", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "FLINT_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3])},
    )


@pytest.mark.integration
def test_report_writes_one_file_and_says_where(flint_home, tmp_path):
    made = plausible_run(aggregations=10)
    with open_catalog(flint_home) as catalog:
        runs = catalog.simulation_runs
        ids = []
        for _ in range(2):
            files = {}
            for name in COLUMNS:
                written = io.BytesIO()
                pq.write_table(getattr(made, name), written)
                files[name] = written.getvalue()
            row = runs.create(NEW)
            runs.finish(row.run_id, made.summary, files)
            ids.append(row.run_id)
        running = runs.create(NEW).run_id

        said = flint("report", ids[0], home=flint_home, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        assert said.stdout == f"the report is in report-{ids[0]}.html\n"
        page = tmp_path / f"report-{ids[0]}.html"
        assert page.read_text().startswith("<!DOCTYPE html>")
        assert page.stat().st_mode & 0o777 == 0o666 & ~_umask()
        assert [path.name for path in tmp_path.iterdir()] == [page.name]

        arguments = ("report", ids[0], ids[1], ids[0], "--output", "both.html", "--json")
        said = flint(*arguments, home=flint_home, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        assert "more than once" in said.stderr
        told = json.loads(said.stdout)
        assert told["report"] == str(tmp_path / "both.html")
        assert [run["run_id"] for run in told["runs"]] == ids
        assert told["runs"][0]["tasks_started"]["mean"] == made.tasks.num_rows
        assert told["comparison"]["to_target"][ids[1]]["speed_up"] == 1.0

        said = flint("report", running, home=flint_home, cwd=tmp_path)
        assert said.returncode == 2
        assert "[FLN-1740]" in said.stderr
        assert said.stderr.count("\n") == 1

        said = flint("report", ids[0], "-o", "no/where.html", home=flint_home, cwd=tmp_path)
        assert said.returncode == 2
        assert "[FLN-1742]" in said.stderr


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_report_cannot_go_to_a_directory_or_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UnwritableReport, match="is a directory"):
        check_writable(tmp_path)
    with pytest.raises(UnwritableReport, match="there is no folder"):
        check_writable(tmp_path / "no" / "report.html")
    check_writable(tmp_path / "report.html")


def test_a_page_replaces_the_one_before_and_leaves_nothing_else(tmp_path):
    page = tmp_path / "report.html"
    for text in ("one", "two"):
        write_page(page, text)
        assert page.read_text() == text
    assert list(tmp_path.iterdir()) == [page]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(UnwritableReport, match="cannot be written"):
        write_page(tmp_path / ("long" * 80), "text")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_starts_without_what_draws():
    program = "import sys, flint.cli.entry; print([m for m in ('matplotlib', 'pyarrow', 'numpy')"
    program += " if m in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "[]\n"
