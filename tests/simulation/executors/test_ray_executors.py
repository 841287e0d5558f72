"""Executors on a real one-node Ray cluster: the results of one process, deaths, mistakes."""

import os
import re
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import psutil
import pytest

pytest.importorskip("ray")

from ray.exceptions import OutOfDiskError

from device_runtime.compression import UpdateCodec
from device_runtime.update_codec import flatten
from modeling.zoo import get_model
from simulation.cluster_settings import ClusterSettings
from simulation.executors import lost_actors
from simulation.executors.local import LocalExecutor
from simulation.executors.lost_actors import (
    ClusterExecutorLost,
    ClusterExecutorStalled,
    ExecutorsNotReady,
)
from simulation.executors.ray_actor import Software
from simulation.executors.ray_cluster import ClusterConnection, RayMissing, _require_listening
from simulation.executors.ray_executors import RayExecutors
from simulation.executors.ray_records import RecordsMissingOnNode, SentRecords, SharedRecords
from simulation.executors.task_columns import TaskColumns
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import PLAN, few_records, make_tasks
from tests.simulation.executors.contract import ExecutorContract, assert_same

TINY = get_model("tiny_mlp")

integration = pytest.mark.integration


@pytest.fixture(scope="module")
def spec():
    """One model: an actor takes seconds to load torch."""
    return TINY


@pytest.fixture(scope="module")
def records(spec):
    return few_records(spec)


@pytest.fixture(scope="module")
def weights(spec):
    return lambda version: flatten(spec.initial_parameters(version))


@pytest.fixture(scope="module")
def cluster():
    """One node, for the whole file; 3 cores is what Ray believes.

    A process that does not end when asked to is killed after half a second, not five.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_kill_worker_timeout_milliseconds", "500")
        connection = ClusterConnection("local", 3)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the user is told of actors that were replaced."""
    return []


@pytest.fixture(scope="module")
def shared(cluster, spec, records, told):
    started = RayExecutors(2, spec, PLAN, records, on_replaced=told.append)
    yield started
    started.close()


@pytest.fixture
def executor(shared) -> RayExecutors:
    return shared


@integration
class TestRayExecutors(ExecutorContract):
    """Two actors, each sent the records of its clients."""


def actors(count: int) -> list[psutil.Process]:
    """The processes of so many actors below this one, in the order of their start.

    A process has its name only from its first answer on.
    """
    deadline_s = time.monotonic() + 30
    while True:
        below = psutil.Process().children(recursive=True)
        found = [each for each in below if "ray::PartitionActor" in " ".join(_command(each))]
        if len(found) == count:
            return sorted(found, key=lambda process: process.create_time())
        assert time.monotonic() < deadline_s, [_command(each) for each in below]
        time.sleep(0.02)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


@integration
def test_a_cluster_of_this_run_alone_is_reached_from_this_machine_only(cluster):
    own = psutil.Process()
    processes = [own, *(p for p in own.children(recursive=True) if "ray" in str(_command(p)))]
    listening = {
        f"{process.name()} {connection.laddr.ip}"
        for process in processes
        if process.is_running()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert any(each.startswith("gcs_server") for each in listening)
    assert [each for each in listening if "127.0.0.1" not in each] == []


@pytest.fixture
def local(spec, records, weights) -> LocalExecutor:
    executor = LocalExecutor(spec, PLAN, records)
    for version in (1, 2, 3):
        executor.set_weights(version, weights(version))
    return executor


@integration
def test_a_killed_actor_is_replaced_and_its_share_is_done_again_and_counted_once(
    executor, local, weights, told
):
    for version in (1, 2, 3):
        executor.set_weights(version, weights(version))
    tasks = make_tasks(14)
    assert_same(executor.reduce(tasks), local.reduce(tasks))
    victim = actors(2)[0]
    victim.suspend()  # it cannot have answered before it is killed
    killer = threading.Timer(0.5, victim.kill)
    killer.start()
    assert_same(executor.reduce(tasks), local.reduce(tasks))
    killer.join()
    (sentence,) = told
    assert re.match(r"executor \d of 2 on node .* ended \(.*\); another on node .* does", sentence)
    assert victim.pid not in [process.pid for process in actors(2)]


@integration
def test_an_actor_that_lives_but_hangs_is_replaced_and_one_too_many_stops_the_run(
    shared, mapped, monkeypatch
):
    here, told = LocalExecutor(TINY, PLAN, mapped), []
    there = RayExecutors(1, TINY, PLAN, mapped, on_replaced=told.append, stall_timeout_s=1.0)
    for executor in (here, there):
        executor.set_weights(1, flatten(TINY.initial_parameters(1)))
    tasks = [replace(task, data_client=task.data_client % 4) for task in make_tasks(12, 1)]
    wanted = here.reduce(tasks)
    assert_same(there.reduce(tasks), wanted)
    hung = actors(3)[-1]
    hung.suspend()
    assert_same(there.reduce(tasks), wanted)
    (sentence,) = told
    assert re.match(
        r"executor 1 of 1 on node .* hung \(it has not finished a task for 1 s\); another", sentence
    )

    monkeypatch.setattr(lost_actors, "MOST_STALLS", 1)
    actors(3)[-1].suspend()
    with pytest.raises(ClusterExecutorStalled) as caught:
        there.reduce(tasks)
    assert re.match(
        r"executor 1 of 1 on node .* hung, 1 time on the same clients without an answer: it has "
        r"not finished a task for 1 s \(executors\.stall_timeout_s\); look at",
        str(caught.value),
    )
    actors(2)  # those of the other executor


@integration
def test_an_actor_that_finishes_tasks_slowly_is_waited_for(cluster):
    """By the way that trains task by task: longer in all than an actor may take for one."""
    model, plan = get_model("tiny_mlp"), replace(PLAN, by_module=True, local_epochs=30)
    records = few_records(model)
    told: list[str] = []
    executor = RayExecutors(1, model, plan, records, on_replaced=told.append, stall_timeout_s=0.5)
    try:
        executor.set_weights(1, flatten(model.initial_parameters(1)))
        begin_s = time.monotonic()
        executor.reduce(make_tasks(60, base_version=1))
        assert time.monotonic() - begin_s > 1.0
        assert told == []
    finally:
        executor.close()


@integration
def test_with_error_feedback_a_death_stops_the_run_because_what_was_left_out_is_lost(
    shared, mapped
):
    """On records in a file that the node maps."""
    plan = replace(PLAN, codec=UpdateCodec("top_k", 0.1, "float32", error_feedback=True))
    here, there = LocalExecutor(TINY, plan, mapped), RayExecutors(1, TINY, plan, mapped)
    for executor in (here, there):
        executor.set_weights(1, flatten(TINY.initial_parameters(1)))
    whose = [replace(task, data_client=task.data_client % 4) for task in make_tasks(12, 1)]
    for tasks in (whose[:6], whose[6:]):
        assert_same(there.reduce(tasks), here.reduce(tasks))
        for executor in (here, there):
            executor.carry_over([task.task_id for task in tasks])
    kept = there.residuals()
    assert len(kept["counted"]) == len(here.residuals()["counted"]) > 0
    victim = actors(3)[-1]
    assert str(mapped.path) in {region.path for region in victim.memory_maps()}
    victim.kill()
    told = r"executor 1 of 1 on node .* ended, what its clients' compressed updates had left out "
    with pytest.raises(ClusterExecutorLost, match=told):
        there.reduce(whose[:6])
    actors(2)  # those of the other executor


@integration
def test_dispatch_waits_for_all_actors_and_says_when_the_cluster_has_no_room(
    cluster, records, spec
):
    settings = ClusterSettings(ready_timeout_s=1.0)
    with pytest.raises(ExecutorsNotReady) as caught:
        RayExecutors(9, spec, PLAN, records, settings)
    assert "of 9 executors have no core to run on within 1 s" in str(caught.value)
    assert "has 3 cores, " in str(caught.value)
    assert "lower executors.count" in str(caught.value)


@integration
def test_what_an_actor_refuses_is_told_as_it_said_it(executor, mapped):
    records = SharedRecords.of(mapped, mapped.path)
    mapped.path.rename(mapped.path.with_name("elsewhere"))
    place = executor._places[0]
    with pytest.raises(RecordsMissingOnNode) as caught:
        executor._received(place, place.actor.begin.remote(None, records))
    told = str(caught.value)
    assert re.match(rf"node \S+ \(.+\) has no records file {re.escape(str(mapped.path))} ", told)
    assert "executors.records: sent" in told


@integration
def test_records_that_are_cut_off_on_a_node_are_named_with_executor_file_and_bytes(shared, mapped):
    """Between two aggregations, and by the actor that takes the place of one that died of it."""
    there = RayExecutors(1, TINY, PLAN, mapped)
    there.set_weights(1, flatten(TINY.initial_parameters(1)))
    tasks = [replace(task, data_client=task.data_client % 4) for task in make_tasks(4, 1)]
    there.reduce(tasks)
    whole = mapped.path.stat().st_size
    os.truncate(mapped.path, 4096)
    with pytest.raises(RecordsMissingOnNode) as caught:
        there.reduce(tasks)
    assert re.match(
        rf"executor 1 of 1 on node \S+ \(.+\): the records file {re.escape(str(mapped.path))} is "
        rf"cut off: it has 4096 of {whole} bytes; put it back",
        str(caught.value),
    )
    with pytest.raises(RecordsMissingOnNode) as caught:
        RayExecutors(1, TINY, PLAN, mapped)
    assert re.match(
        r"node \S+ \(.+\) has another records file .*: 4096 bytes, here", str(caught.value)
    )
    actors(2)  # those of the other executor


def test_a_truncated_copy_of_the_records_is_not_trained_on(mapped):
    shared = SharedRecords.of(mapped, mapped.path)
    os.truncate(mapped.path, 1000)
    with pytest.raises(RecordsMissingOnNode, match=f"1000 bytes, here {shared.size_bytes};"):
        shared.open("10.0.0.7 (b)")


def test_partitions_that_are_sent_hold_each_client_once_and_unchanged(mapped):
    for shares in (1, 2, 3):
        owner = np.arange(4) % shares
        parts = [SentRecords.of(mapped, owner == share).open("") for share in range(shares)]
        assert sum(len(part.x) for part in parts) == len(mapped.x)
        for client in range(4):
            for share, part in enumerate(parts):
                wanted = (
                    mapped.of(client) if share == owner[client] else (mapped.x[:0], mapped.y[:0])
                )
                for ours, theirs in zip(part.of(client), wanted, strict=True):
                    np.testing.assert_array_equal(ours, theirs)


def test_partitions_that_are_sent_sum_up_to_the_bits_of_the_whole_in_sample_space():
    records, tasks = records_of(WIDE), TaskColumns.of(make_tasks(14, base_version=1))
    weights = flatten(WIDE.initial_parameters(1))
    whole = LocalExecutor(WIDE, PLAN, records)
    assert whole.path.in_samples.any()
    whole.set_weights(1, weights)
    wanted = whole.sum_on_grid(tasks)[0][1]
    owner = whole.path.executor_of(3)
    found = np.zeros_like(wanted)
    for number in range(3):
        part = SentRecords.of(records, owner == number).open("")
        executor = LocalExecutor(WIDE, PLAN, part, whole.path)
        executor.set_weights(1, weights)
        mine = np.flatnonzero(owner[tasks.data_client] == number)
        found += sum(executor.sum_on_grid(tasks.take(mine))[0].values())
    np.testing.assert_array_equal(found, wanted)


def test_a_node_with_other_software_is_told_apart():
    here = Software("a" * 64, {"python": "3.11.7", "torch": "2.13.0"}, "x")
    assert here.difference(replace(here, processor="y")) is None
    assert replace(here, code="b").difference(here) == "another version of FLINT's code"
    older = replace(here, versions={"python": "3.11.7", "torch": "2.12.0"})
    assert older.difference(here) == "torch 2.12.0, here 2.13.0"
    assert (
        replace(here, versions={"python": "3.11.7"}).difference(here) == "torch (none), here 2.13.0"
    )


def test_a_port_of_something_else_is_no_cluster_and_is_told_at_once():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        try:
            for asked in (address, f"ray://{address}"):
                with pytest.raises(OSError, match="does not answer as Ray does"):
                    _require_listening(asked)
        finally:
            server.shutdown()


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissing, match="flint-on-flower\\[cluster\\]"):
        ClusterConnection("auto", 2)


@integration
def test_too_many_deaths_stop_the_run_with_the_executor_and_the_mend(executor, monkeypatch):
    """Last, because all actors end with it."""
    monkeypatch.setattr(lost_actors, "MOST_DEATHS", 1)
    executor.set_weights(1, np.zeros(TINY.parameter_count, np.float32))
    actors(2)[0].kill()
    with pytest.raises(ClusterExecutorLost) as caught:
        executor.reduce(make_tasks(6, base_version=1))
    assert re.search(r"executor \d of 2 on node .* ended, 1 time on the same", str(caught.value))
    assert "resume the run, with fewer executors a node if memory ran out" in str(caught.value)
    assert actors(0) == []


@integration
def test_a_cluster_that_fails_is_a_sentence_and_not_a_traceback_of_ray(executor, monkeypatch):
    def put(_: object) -> None:
        raise OutOfDiskError("The object cannot be created because the local object store is full")

    monkeypatch.setattr(executor._ray, "put", put)
    told = r"the Ray cluster at 127\.0\.0\.1:\d+ failed: .*store is full.*; resume the run when it"
    with pytest.raises(ClusterExecutorLost, match=told):
        executor.set_weights(2, np.zeros(TINY.parameter_count, np.float32))
