"""``flint console`` from its start to its end, and ``flint models lineage``."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_catalog.embedded import EmbeddedPostgres
from feature_catalog.model_store import NewVersion
from flint.catalog_session import open_catalog
from flint.cli.entry import main


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, and what was said on stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    return int(str(ended.value.code)), said.out, said.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "flint.example"])
def test_a_console_open_to_others_has_to_be_asked_for(capsys, tmp_path, host):
    code, _, said = outcome(capsys, "console", "--host", host, "--home", str(tmp_path / "home"))
    assert (code, said.count("\n")) == (2, 1)
    assert "without a login" in said
    assert "--let-others-read" in said
    assert "[FLN-3020]" in said
    assert not (tmp_path / "home").exists()


def test_a_port_that_is_taken_is_told_before_anything_is_started(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        home = tmp_path / "home"
        code, _, said = outcome(capsys, "console", "--port", str(port), "--home", str(home))
    assert (code, said.count("\n")) == (2, 1)
    assert f"port {port}" in said
    assert "--port" in said
    assert "[FLN-1203]" in said
    assert not home.exists()


def test_an_address_of_another_machine_is_told_in_a_sentence(capsys, tmp_path):
    given = ("--host", "203.0.113.9", "--let-others-read", "--home", str(tmp_path / "home"))
    code, _, said = outcome(capsys, "console", *given)
    assert code == 2
    assert "[FLN-1214]" in said


def test_without_its_packages_the_console_says_which_extra_brings_them(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, said = outcome(capsys, "console", "--home", str(tmp_path))
    assert code == 2
    assert "flint-on-flower[console]" in said


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, dict[str, Any], "subprocess.Popen[str]"]]:
    """A data directory without a server, and a console of it."""
    home = Path(tempfile.mkdtemp(prefix="flint-home-"))
    home.chmod(0o755)
    command = [sys.executable, "-m", "flint", "console", "--port", "0", "--json"]
    environment = {**os.environ, "FLINT_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        yield home, json.loads(console.stdout.readline()), console
        console.kill()
    EmbeddedPostgres(home / "postgres").stop()
    shutil.rmtree(home, ignore_errors=True)


def shown(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.integration
def test_a_console_without_a_server_shows_what_is_stored_and_ends_cleanly(served, capsys):
    home, told, console = served
    assert told["home"] == str(home)
    assert "Nothing is here yet" in shown(told["url"])
    # What is stored meanwhile is there, and can be asked for without the console too.
    with open_catalog(home) as catalog:
        catalog.models.add_version(NewVersion("central", "tiny_mlp", b"weights"))
    assert "central@1" in shown(f"{told['url']}models/central")
    for group in ("models", "model"):
        code, out, _ = outcome(capsys, group, "lineage", "central", "--home", str(home))
        assert code == 0
        assert "who trained it" in out
    code, out, _ = outcome(capsys, "models", "lineage", "central", "--json", "--home", str(home))
    graph = json.loads(out)
    assert graph["root"] == "model_version:central@1"
    assert [edge["relation"] for edge in graph["edges"]] == ["made by"]
    console.send_signal(signal.SIGINT)
    assert console.wait(timeout=60) == 0
    assert not EmbeddedPostgres(home / "postgres").is_running()
