"""Failpoints: off by default, armed while the process runs, and hit once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_catalog.failpoints import FAILPOINT_VARIABLE, FAILPOINTS, arm

ROOT = Path(__file__).parents[2]
PASSES = "from feature_catalog.failpoints import failpoint\n" + "\n".join(
    f"failpoint('{name}'); print({number}, flush=True)"
    for number, name in enumerate(["commit_sent", "update_folded", "commit_sent"])
)


def passes(**environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PASSES]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_without_the_variable_nothing_happens(tmp_path):
    arm(tmp_path / "point", "commit_sent")
    assert passes().stdout.split() == ["0", "1", "2"]


@pytest.mark.parametrize(("nth", "printed"), [(1, []), (2, ["0", "1"]), (3, ["0", "1", "2"])])
def test_the_nth_pass_of_the_armed_place_kills_the_process_once(tmp_path, nth, printed):
    point = tmp_path / "point"
    arm(point, "commit_sent", nth)
    done = passes(**{FAILPOINT_VARIABLE: str(point)})
    assert done.stdout.split() == printed
    assert done.returncode == (0 if nth > 2 else -signal.SIGKILL)
    assert point.exists() == (nth > 2)
    point.unlink(missing_ok=True)
    assert passes(**{FAILPOINT_VARIABLE: str(point)}).returncode == 0


def test_a_place_that_does_not_exist_cannot_be_armed(tmp_path):
    with pytest.raises(ValueError, match="no pass 1"):
        arm(tmp_path / "point", "nowhere")


def test_every_place_is_in_the_code_once():
    code = "".join(
        path.read_text()
        for package in ("server", "feature_catalog")
        for path in (ROOT / package).rglob("*.py")
    )
    assert {name: code.count(f'failpoint("{name}")') for name in FAILPOINTS} == dict.fromkeys(
        FAILPOINTS, 1
    )
