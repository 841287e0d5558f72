"""What a user sees who makes a mistake: one sentence with the mend, an exit code, no traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "job.yaml"


def flint(*arguments: object, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flint", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "FLINT_HOME": str(home), "COLUMNS": "100", **environment},
    )


def sentence(result: subprocess.CompletedProcess[str], *, exit_code: int = 2) -> str:
    """The one line on stderr of a command that failed."""
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("flint: ")
    return line


def test_help_names_every_command_and_comes_at_once(tmp_path):
    flint("--help", home=tmp_path)  # compiles what is not compiled yet
    started_s = time.monotonic()
    result = flint("--help", home=tmp_path)
    elapsed_s = time.monotonic() - started_s
    assert result.returncode == 0
    served = ("up", "submit", "jobs", "job", "stop", "device", "demo")
    for command in (*served, "models", "dataset", "trace", "bench", "runs"):
        assert f" {command} " in result.stdout
    assert elapsed_s < 2.0  # 0.2 s on an idle machine; with torch it would be far above


COMMANDS = [
    ["up"],
    ["status"],
    ["submit"],
    ["jobs"],
    ["job"],
    ["stop"],
    *(
        ["catalog", command]
        for command in ("plan", "apply", "list", "show", "history", "diff", "lineage")
    ),
    ["models", "list"],
    ["models", "show"],
    ["models", "import"],
    ["models", "export"],
    ["models", "promote"],
    ["models", "build"],
    ["model", "check"],
    ["dataset", "add"],
    ["dataset", "list"],
    ["dataset", "show"],
    ["availability", "build"],
    ["availability", "example"],
    ["trace", "add"],
    ["trace", "list"],
    ["trace", "show"],
    ["bench", "run"],
    ["bench", "report"],
    ["bench", "export"],
    ["availability", "report"],
    ["availability", "tune"],
    ["bandwidth", "fit"],
    ["population", "build"],
    ["runs"],
    ["runs", "show"],
    ["device", "enrol-token"],
    ["device", "fleet"],
    ["demo"],
    ["errors"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(command, tmp_path):
    result = flint(*command, "--help", home=tmp_path)
    assert result.returncode == 0
    assert f"flint {' '.join(command)}" in result.stdout
    assert "Example: flint " in result.stdout


def test_one_devices_options_are_those_of_the_device_runtime(tmp_path):
    result = flint("device", "run", "--help", home=tmp_path)
    assert result.returncode == 0
    assert "--enrolment-token-file" in result.stdout


def test_a_broken_job_file_is_told_before_a_server_is_looked_for(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(EXAMPLE.read_text().replace("buffer_size", "bufer_size"))
    line = sentence(flint("submit", job, home=tmp_path / "no-server"))
    assert "job.yaml: strategy.bufer_size is not a known key (did you mean buffer_size?)" in line
    assert "[FLN-1003]" in line


def test_a_job_that_asks_for_differential_privacy_is_refused(tmp_path):
    job = tmp_path / "private.yaml"
    text = EXAMPLE.read_text().replace(
        "privacy:\n", "privacy:\n  differential_privacy: {clip_norm: 1.0, noise_multiplier: 0.8}\n"
    )
    job.write_text(text)
    line = sentence(flint("submit", job, home=tmp_path))
    assert "private.yaml: privacy.differential_privacy = {clip_norm: 1.0" in line
    assert "[FLN-1004]" in line


def test_commands_that_need_a_server_say_how_to_start_one(tmp_path):
    for command in (["submit", EXAMPLE], ["jobs"], ["device", "fleet", "--dataset", "clicks"]):
        line = sentence(flint(*command, home=tmp_path / "nowhere"))
        assert "start one with `flint up`" in line
        assert "[FLN-1201]" in line


def test_a_slip_in_the_command_line_is_one_sentence_too(tmp_path):
    assert "No such command 'sumbit'" in sentence(flint("sumbit", home=tmp_path))
    line = sentence(flint("jobs", "--jsn", home=tmp_path))
    assert "`flint jobs --help` shows how" in line
    assert "Missing argument" in sentence(flint("job", home=tmp_path))


def test_more_executors_than_an_environment_may_ask_for_are_not_started(tmp_path):
    asked = ("simulate", "job.yaml", "-e", "environment.yaml", "--executors", 5000)
    result = flint(*asked, home=tmp_path)
    assert result.returncode == 2
    assert "5000 is not in the range 1<=x<=1024" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path):
    for arguments in (["--debug", "jobs"], ["jobs", "--debug"]):
        result = flint(*arguments, home=tmp_path / "nowhere")
        assert result.returncode == 2
        assert "Traceback" in result.stderr
        assert "[FLN-1201]" in result.stderr


def test_an_error_nobody_expected_exits_1_without_a_traceback(tmp_path):
    damaged = tmp_path / "run"
    damaged.mkdir()
    (damaged / "settings.json").symlink_to(tmp_path)  # reading a directory
    line = sentence(flint("jobs", home=tmp_path), exit_code=1)
    assert "unexpected IsADirectoryError" in line
    assert "--debug" in line


def test_an_error_code_is_explained(tmp_path):
    for code in ("FLN-1003", "1003", "[fln-1003]"):
        result = flint("errors", code, home=tmp_path)
        assert result.returncode == 0
        assert result.stdout.startswith("# FLN-1003: unknown key in the job file")
    assert "FLN-2106: " in flint("errors", home=tmp_path).stdout
    assert "[FLN-1250]" in sentence(flint("errors", "FLN-9999", home=tmp_path))


def test_status_without_a_server_is_no_error(tmp_path):
    result = flint("status", "--json", home=tmp_path)
    assert result.returncode == 0
    status = json.loads(result.stdout)
    assert (status["running"], status["ready"], status["processes"]) == (False, False, [])


def test_a_port_in_use_is_named_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        line = sentence(flint("up", "--gateway-port", port, home=tmp_path))
    assert f"port {port}" in line
    assert "--gateway-port" in line
    assert "[FLN-1203]" in line
    assert not (tmp_path / "postgres").exists()


def test_a_dead_database_is_one_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql+psycopg2://flint:secret@127.0.0.1:{port}/flint"
    ports = ["--gateway-port", 0, "--coordinator-port", 0, "--superlink-port", 0]
    ports += ["--gateway-metrics-port", 0, "--coordinator-metrics-port", 0]
    line = sentence(flint("up", *ports, home=tmp_path, FLINT_DATABASE_URL=url))
    assert "[FLN-1202]" in line
    assert str(port) in line
    assert "secret" not in line


def test_the_demos_options_are_checked_before_anything_starts(tmp_path):
    assert "--client-field and --label-field" in sentence(
        flint("demo", "--data", "x.parquet", home=tmp_path)
    )
    assert "use fedbuff, fedavg or both" in sentence(
        flint("demo", "--strategy", "fedprox", home=tmp_path)
    )
    assert "give it with --data" in sentence(flint("demo", "--label-field", "label", home=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_told_with_the_nearest_one(tmp_path):
    data = tmp_path / "clicks.csv"
    data.write_text("user_id,clicked,ad\na,1,x\nb,0,y\n")
    arguments = ["--data", data, "--client-field", "userid", "--label-field", "clicked"]
    result = flint("demo", *arguments, "--home", tmp_path / "demo", home=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "userid" in line
    assert "user_id" in line
    assert "[FLN-1103]" in line
    assert not (tmp_path / "demo" / "postgres").exists()


def test_a_demo_never_moves_into_a_servers_directory(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    line = sentence(flint("demo", "--home", tmp_path, home=tmp_path))
    assert "[FLN-1257]" in line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_ends_quietly(number, code, tmp_path):
    script = (
        "import time, flint.cli.entry as entry\n"
        "def wait(*_, **__):\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "entry.app.command('wait')(lambda: wait())\n"
        "entry.main(['wait'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_compiled_code_drops_is_not_lost(number, code):
    script = (
        "import time, flint.cli.entry as entry\n"
        "class Dropping:\n"
        "    def __del__(self):\n"
        "        print('waiting', flush=True)\n"
        "        time.sleep(60)\n"
        "def wait():\n"
        "    Dropping()\n"
        "    time.sleep(60)\n"
        "entry.app.command('wait')(lambda: wait())\n"
        "entry.main(['wait'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said == ""


def test_output_that_nobody_reads_to_the_end_is_no_error_message(tmp_path):
    process = subprocess.run(
        f"{sys.executable} -m flint errors | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stderr == ""
    assert process.stdout.startswith("FLN-1000")


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("typer", "server"),
        ("sqlalchemy", "server"),
        ("matplotlib", "simulation"),
        ("sklearn", "demo"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(package, extra, tmp_path):
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"sys.argv = ['flint', 'demo', '--home', {str(tmp_path / 'demo')!r}]\n"
        "from flint.cli import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    line = sentence(result)
    assert f"needs {package}, which is not installed" in line
    assert f"flint-on-flower[{extra}]" in line


def test_a_database_lost_in_the_midst_of_a_command_is_one_sentence():
    from sqlalchemy.exc import OperationalError

    from flint.cli.entry import _explain

    lost = OperationalError("SELECT secret", {}, Exception("server closed the connection"))
    sentence, exit_code = _explain(lost)
    assert exit_code == 2
    assert "`flint status`" in sentence
    assert "secret" not in sentence
