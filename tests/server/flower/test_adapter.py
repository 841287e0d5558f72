import dataclasses
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.runtime import RuntimeHttpClient

from server.flower import adapter as adapter_module
from server.flower import superlink as superlink_module
from server.flower.adapter import (
    FlowerRefused,
    FlowerRun,
    SuperLinkUnreachable,
    WrongFlowerVersion,
    run_status,
    stop_run,
    submit_run,
)
from server.flower.control import find_run
from server.flower.node_messages import RunEnded, SuperLinkBusy
from server.flower.task_session import TaskSession
from server.operations.ports import choose_ports
from server.operations.settings import ServerSettings
from tests.server.flower.conftest import eventually

pytestmark = pytest.mark.integration

FLWR = str(Path(sys.executable).with_name("flwr"))


def flwr(settings: ServerSettings, *arguments: str) -> str:
    environment = {
        **os.environ,
        "FLWR_HOME": str(settings.home / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "COLUMNS": "300",
    }
    result = subprocess.run(
        [FLWR, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout


@pytest.fixture
def run_id(settings: ServerSettings) -> Iterator[int]:
    run_id = submit_run(settings, "ads_ctr")
    yield run_id
    stop_run(settings, run_id)


@pytest.fixture
def run(settings: ServerSettings, run_id: int) -> Iterator[FlowerRun]:
    run = FlowerRun.acquire(settings, run_id, "ads_ctr")
    yield run
    run.abandon()
    stop_run(settings, run.run_id)


def test_a_submitted_run_waits_under_its_jobs_name(settings, run_id):
    assert run_status(settings, run_id).status == "pending"
    assert find_run(settings, run_id).fab_id == "flint/ads-ctr"


def test_two_submissions_of_one_job_are_two_apps(settings, run_id):
    other = submit_run(settings, "ads_ctr")
    assert find_run(settings, other).fab_hash != find_run(settings, run_id).fab_hash
    stop_run(settings, other)


@pytest.mark.parametrize("name", ["a", "a_" * 31, "job-1__x"])
def test_every_job_name_can_be_submitted(settings, name):
    run_id = submit_run(settings, name)
    assert stop_run(settings, run_id)


def test_only_the_wanted_runs_task_is_taken(settings, run_id):
    queued_later = submit_run(settings, "other_job")
    run = FlowerRun.acquire(settings, queued_later, "other_job")
    assert run.run_id == queued_later
    assert run_status(settings, queued_later).status == "running"
    assert run_status(settings, run_id).status == "pending"
    run.finish("completed", "target reached")
    assert run_status(settings, queued_later).sub_status == "completed"


def test_nobody_takes_our_task_without_the_shared_secret(settings, run_id):
    client = RuntimeHttpClient.from_server_address(
        settings.superlink_address, False, settings.ca_certificate.read_bytes(), interceptors=[]
    )
    with client, pytest.raises(httpx.HTTPStatusError, match="401"):
        client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))


def test_a_stop_with_flowers_own_tool_is_noticed(settings, run):
    assert f"{run.run_id}" in flwr(settings, "list")
    assert not run.stopped()
    flwr(settings, "stop", str(run.run_id))
    eventually(run.stopped)
    with pytest.raises(RunEnded):
        run.grid.online_nodes()
    run.finish("completed", "too late to say so")
    assert run_status(settings, run.run_id).stopped


def test_our_stop_shows_in_flowers_own_tool(settings, run):
    run.finish("stopped", "stopped with `flint stop`")
    row = next(line for line in flwr(settings, "list").splitlines() if str(run.run_id) in line)
    assert "finished:stopped" in row


def test_a_run_stopped_while_it_waited_is_acquired_as_stopped(settings, run_id):
    assert stop_run(settings, run_id)
    assert not stop_run(settings, run_id)
    run = FlowerRun.acquire(settings, run_id, "ads_ctr")
    assert run.stopped()
    assert run.run_id == run_id
    run.finish("stopped", "")


def test_a_failure_shows_its_reason(settings, run):
    run.finish("failed", "the model diverged")
    status = run_status(settings, run.run_id)
    assert (status.sub_status, status.details) == ("failed", "the model diverged")


def test_a_restarted_coordinator_goes_on_with_the_same_run(settings, run):
    run.abandon()
    again = FlowerRun.acquire(settings, run.run_id, "ads_ctr")
    assert again.run_id == run.run_id
    assert list(again.grid.online_nodes()) == []
    again.finish("completed", "")
    assert run_status(settings, run.run_id).sub_status == "completed"


def test_a_run_whose_task_is_lost_is_replaced_under_the_same_name(settings, run):
    run.abandon()
    (settings.secrets / "flower-task.json").unlink()
    other = FlowerRun.acquire(settings, run.run_id, "ads_ctr")
    assert other.run_id != run.run_id
    assert find_run(settings, other.run_id).fab_id == "flint/ads-ctr"
    assert run_status(settings, run.run_id).stopped
    other.finish("completed", "")


def test_a_task_taken_and_not_begun_when_the_coordinator_died_is_begun_by_the_next(
    settings, run_id, monkeypatch
):
    def dies(_: TaskSession) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TaskSession, "activate", dies)
        with pytest.raises(KeyboardInterrupt):
            FlowerRun.acquire(settings, run_id, "ads_ctr")
    assert run_status(settings, run_id).status == "starting"
    run = FlowerRun.acquire(settings, run_id, "ads_ctr")
    assert (run.run_id, run_status(settings, run_id).status) == (run_id, "running")
    run.finish("completed", "")


def test_a_task_that_superlink_does_not_let_begin_is_one_sentence_and_then_replaced(
    settings, run_id, monkeypatch
):
    def ends(_: TaskSession) -> None:
        raise SuperLinkBusy("ReadError")

    with monkeypatch.context() as patch:
        patch.setattr(TaskSession, "activate", ends)
        with pytest.raises(FlowerRefused, match="did not begin"):
            FlowerRun.acquire(settings, run_id, "ads_ctr")
    (settings.secrets / "flower-task.json").unlink()
    run = FlowerRun.acquire(settings, run_id, "ads_ctr")
    assert run.run_id != run_id
    assert run_status(settings, run_id).stopped
    run.finish("completed", "")


def test_while_a_lost_run_is_replaced_superlink_may_end_again(settings, run, monkeypatch):
    before, tried = run.run_id, []

    def busy_once(*arguments) -> TaskSession:
        tried.append(arguments)
        if len(tried) == 1:
            raise SuperLinkBusy("ConnectError")
        return take_new(*arguments)

    take_new = adapter_module._take_new
    monkeypatch.setattr(adapter_module, "_take_new", busy_once)
    run._session.push_output("failed", "as SuperLink does when it has heard nothing for a minute")
    eventually(lambda: run.run_id != before)
    assert run_status(settings, run.run_id).status == "running"


def test_a_job_without_a_run_gets_one(settings):
    run = FlowerRun.acquire(settings, None, "ads_ctr")
    assert run_status(settings, run.run_id).status == "running"
    run.finish("completed", "")


def test_a_run_superlink_never_heard_of_is_replaced(settings):
    assert run_status(settings, 4711) is None
    run = FlowerRun.acquire(settings, 4711, "ads_ctr")
    assert run.run_id != 4711
    run.finish("completed", "")


def test_our_log_lines_show_in_flower(settings, run):
    run.log("version 3 stored")
    logging.getLogger("server.coordination.job_runner").warning("a round was abandoned")
    run.finish("completed", "")
    shown = flwr(settings, "log", str(run.run_id), "--show")
    assert "version 3 stored\n" in shown
    assert "WARNING a round was abandoned\n" in shown


def test_a_run_survives_the_crash_of_superlink(superlink, settings, run):
    (process,) = superlink.status().processes
    os.kill(process.pid, signal.SIGKILL)

    def is_back() -> bool:
        (now,) = superlink.status().processes
        return now.restarts > process.restarts and now.state == "ready"

    eventually(is_back)
    eventually(lambda: run_status(settings, run.run_id).status == "running")
    assert list(run.grid.online_nodes()) == []
    run.finish("completed", "")
    assert run_status(settings, run.run_id).sub_status == "completed"


def test_a_run_lost_while_it_is_driven_is_replaced_and_the_job_goes_on(settings, run):
    lost = run.run_id
    # What SuperLink does itself to a task it has not heard of for a minute.
    run._session.push_output("failed", "No heartbeat received from the task")
    eventually(lambda: run.run_id != lost)
    assert not run.stopped()
    assert run_status(settings, run.run_id).status == "running"
    assert list(run.grid.online_nodes()) == []
    reply = run.grid.pull(["sent-under-the-lost-run"], max_reply_bytes=1)[0]
    assert reply.error_code == 3
    run.finish("completed", "")


def test_a_superlink_that_does_not_answer_is_one_sentence(settings):
    port = choose_ports({"superlink": ("127.0.0.1", 0)})["superlink"]
    nowhere = dataclasses.replace(settings, superlink_address=f"127.0.0.1:{port}")
    with pytest.raises(SuperLinkUnreachable, match=rf"127\.0\.0\.1:{port}.*`flint up`.*FLN-1602"):
        submit_run(nowhere, "ads_ctr", patience_s=0.0)


def test_another_flwr_is_refused_with_the_mend(settings, monkeypatch):
    monkeypatch.setattr(superlink_module, "version", lambda _: "1.42.0")
    with pytest.raises(WrongFlowerVersion, match=r"1\.42\.0 is installed.*flwr==1\.41\.0.*1601"):
        submit_run(settings, "ads_ctr")
