"""Service and container files: what they start is there, with options that exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from flint.cli.entry import app

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")])
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def flint_commands() -> dict[str, list[str]]:
    """Arguments of every `flint` that a file starts, by where."""
    found = {}
    for unit in UNITS:
        for line in re.findall(r"^ExecStart=\S*/flint (.*)$", unit.read_text(), re.MULTILINE):
            found[unit.name] = [word for word in shlex.split(line) if not word.startswith("$")]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (default,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
    found["Dockerfile"] = yaml.safe_load(default)
    found["compose.yaml"] = COMPOSE["services"]["flint"]["command"]
    example = (DEPLOY / "flint.env.example").read_text()
    (options,) = re.findall(r"^FLINT_UP=(.*)$", example, re.MULTILINE)
    found["flint.env.example"] = ["up", *shlex.split(options)]
    return found


@pytest.mark.parametrize(
    ("where", "arguments"), flint_commands().items(), ids=lambda a: str(a)[:24]
)
def test_commands_and_options_exist(where, arguments):
    command = typer.main.get_command(app).commands[arguments[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    used = {word.partition("=")[0] for word in arguments[1:] if word.startswith("--")}
    assert used <= options


@pytest.mark.parametrize("where", ["flint.service", "Dockerfile", "compose.yaml"])
def test_what_is_deployed_is_in_production(where):
    words = " ".join(flint_commands()[where])
    assert re.search(r"--profile[= ]production", words)


def test_variables_of_the_compose_file_are_in_its_example():
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / "compose.env.example").read_text()
    for name in set(re.findall(r"\$\{(\w+)", text)):
        assert re.search(rf"^{name}=", example, re.MULTILINE), name


def test_files_and_volumes_the_compose_file_mounts_are_there():
    named = set(COMPOSE["volumes"])
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert source in named or (DEPLOY / source).exists(), mount
    build = COMPOSE["services"]["flint"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    scraped = DEPLOY / "../server/operations/monitoring/prometheus.yaml"
    assert scraped.is_file()


def test_the_image_copies_what_it_installs():
    ignored = (ROOT / ".dockerignore").read_text().split()
    for needed in ("pyproject.toml", "constraints.txt", "README.md", "server", "feature_catalog"):
        assert (ROOT / needed).exists()
        assert needed not in ignored


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units_and_finds_them_confined(tmp_path):
    for unit in UNITS:
        # It looks whether the program is there, which it is not on this machine.
        text = re.sub(r"/opt/flint/bin/flint", sys.executable, unit.read_text())
        (tmp_path / unit.name).write_text(text)
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(tmp_path / "flint.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    (exposure,) = re.findall(r"Overall exposure level for flint\.service: ([\d.]+)", rated.stdout)
    assert float(exposure) < 3.0
