"""FLB-1's workload, its turns with drivers in processes of their own, and its table."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling.spec import ModelSpec
from modeling.zoo import MODELS
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan

DRIVER = """
import sys
from pathlib import Path

sys.path.insert(0, {peers!r})
from flb1_rounds import Rounds, Workload

work = Workload.load(Path(sys.argv[1]))
print("what a peer prints is for its log")
rounds, number = Rounds("numpy"), 0
while rounds.go_on():
    total = sum(work.x[work.rows(client)].sum() for client in work.cohort(number))
    number += 1
    if number == 5:
        raise ValueError("the fifth round is too much")
"""


@pytest.fixture(scope="module")
def work(benchmark):
    """A few small clients of the smallest zoo model."""
    make = benchmark("flb1_workload").make_zoo_workload
    return make(MODELS["tiny_mlp"], 6, 3, 5)


@pytest.fixture(scope="module")
def flb_a(benchmark):
    """FLB-A with three cohorts."""
    return benchmark("flb1_workload").make_workload("A", cohort=8, rounds=3, seed=3)


def test_the_same_seed_draws_the_same_workload(benchmark, flb_a):
    again = benchmark("flb1_workload").make_workload("A", cohort=8, rounds=3, seed=3)
    np.testing.assert_array_equal(again.records.x, flb_a.records.x)
    np.testing.assert_array_equal(again.cohorts, flb_a.cohorts)


def test_most_clients_take_a_single_step(flb_a):
    counts = flb_a.records.records
    assert counts.min() == 1
    assert counts.max() <= 400
    assert 0.7 < (counts <= 20).mean() < 0.8


def test_a_driver_reads_what_was_written(benchmark, flb_a, tmp_path):
    plan = LocalPlan(3, 5, 400)
    benchmark("flb1_workload").write_workload(flb_a, plan, tmp_path)
    read = benchmark("flb1_rounds").Workload.load(tmp_path)
    client = read.cohort(4)[2]  # of three cohorts: the second again
    assert client == flb_a.cohorts[1][2]
    x, y = flb_a.records.of(client)
    np.testing.assert_array_equal(read.x[read.rows(client)], x)
    np.testing.assert_array_equal(read.y[read.rows(client)], y)
    kernels = [kernel for kernel, _ in read.parameters]
    assert [k.shape for k in kernels] == [(32, 40), (40, 4), (4, 1)]
    np.testing.assert_array_equal(kernels[1], flb_a.start[2])
    assert (read.local_epochs, read.batch_size, read.learning_rate) == (3, 5, 0.05)


def test_the_plain_loop_in_another_process_has_the_same_workload(benchmark, flb_a, tmp_path):
    plan = LocalPlan(2, 10, 400)
    module = benchmark("flb1_workload")
    module.write_workload(flb_a, plan, tmp_path)
    read, read_plan = module.read_workload(tmp_path)
    assert (read.spec, read_plan) == (flb_a.spec, plan)
    np.testing.assert_array_equal(read.records.first_row, flb_a.records.first_row)
    for ours, theirs in zip(read.start, flb_a.start, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_our_rounds_go_where_the_plain_loop_goes(benchmark, work):
    plan = LocalPlan(1, 20, 400)
    executor = LocalExecutor(work.spec, plan, work.records)
    assert benchmark("flb1_turns").distance_to_naive(work, plan, executor, rounds=3) < 1e-4


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_zoo_clients_have_records_of_their_models_shape(benchmark, spec: ModelSpec):
    made = benchmark("flb1_workload").make_zoo_workload(
        dataclasses.replace(spec), cohort=2, rounds=1, seed=1
    )
    x, y = made.records.of(int(made.cohorts[0][0]))
    assert x.shape[1:] == spec.input.shape
    assert y.shape[1:] == spec.label_shape
    if spec.ids is not None:
        assert made.records.x.max() < spec.ids
        assert (made.records.x >= 0).any(axis=1).all()


@pytest.fixture
def drivers(benchmark, flb_a, tmp_path, monkeypatch):
    """Starts the driver above in place of a peer's."""
    benchmark("flb1_workload").write_workload(flb_a, LocalPlan(1, 20, 400), tmp_path)
    module = benchmark("flb1_peers")
    peers = tmp_path / "peers"
    peers.mkdir()
    script = DRIVER.format(peers=str(module.HERE / "peers"))
    (peers / "flb1_fedjax.py").write_text(script)
    monkeypatch.setattr(module, "HERE", tmp_path)
    return lambda: module.Drivers("fedjax", Path(sys.executable), tmp_path, cores=1)


def test_a_driver_does_the_rounds_that_it_is_asked_for(drivers):
    with drivers() as peer:
        assert peer.versions == {"numpy": np.__version__}
        for count in (1, 3):
            spent = peer.rounds(count)
            assert spent.wall_s > 0
            assert spent.cpu_s >= 0


def test_a_driver_that_fails_says_why(benchmark, drivers):
    with (
        drivers() as peer,
        pytest.raises(benchmark("flb1_peers").PeerFailed, match="fifth round is too much"),
    ):
        peer.rounds(5)


def test_the_seconds_of_a_process_are_those_of_all_under_it(benchmark):
    import os
    import subprocess
    import time

    before_s = benchmark("flb1_rounds").tree_cpu_s(os.getpid())
    own_s = time.process_time()
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    own_s = time.process_time() - own_s
    under_s = benchmark("flb1_rounds").tree_cpu_s(os.getpid()) - before_s - own_s
    assert 0.4 < under_s < 1.0


def rows(benchmark, **names):
    module = benchmark("flb1_table")
    by_name = {row.name: row for row in module.ROWS}
    return module.table({by_name[name]: result for name, result in names.items()})


def test_the_table_says_what_was_reached(benchmark):
    text = rows(
        benchmark,
        b_naive={"peer": "ran", "ratio_per_core": 8.13, "ratio_whole_machine": 9.0},
        b_pfl={"peer": "ran", "ratio_per_core": 7.0},
        groups_b={"ratio_to_the_cohort": 0.84},
        a_flower=None,
    )
    assert text.splitlines()[2:] == [
        "| kernel, FLB-B beside naive | 5x | 8x | 8.13x | 9x | aim |",
        "| kernel, FLB-B beside pfl | 7x | 12x | 7x |  | must |",
        "| groups of 10 by cohorts of 100, FLB-B | 85% | 95% | 84% |  | **below** |",
        "| kernel, FLB-A beside flower | 1,000x | 2,500x | - |  | not measured |",
    ]


def test_the_table_takes_the_place_of_the_last_one(benchmark):
    module = benchmark("flb1_table")
    begin, end = module.MARKS
    once = module.put_into(f"before\n{begin}\nold\n{end}\nafter\n", "| new |")
    assert once == f"before\n{begin}\n\n| new |\n\n{end}\nafter\n"
    assert module.put_into(once, "| new |") == once
    with pytest.raises(ValueError, match="no <!-- table"):
        module.put_into("nothing here", "| new |")


def test_a_peer_that_is_not_there_is_named_in_the_table(benchmark):
    peer = "not installed: no matching distribution; the figures are beside naive"
    text = rows(benchmark, b_flsim={"peer": peer, "ratio_per_core": 6.0})
    assert text.endswith(f"| 6x |  | {peer} |")


def test_seconds_and_bytes_are_reached_from_above(benchmark):
    module = benchmark("flb1_table")
    row = next(each for each in module.ROWS if each.figure == ("week", "engine_cpu_s"))
    for seconds, word in ((9.0, "aim"), (59.0, "must"), (61.0, "**below**")):
        assert module.reading_of(row, {"week": {"engine_cpu_s": seconds}}) == word


def test_every_row_has_a_result_of_its_own_and_a_benchmark(benchmark):
    module = benchmark("flb1_table")
    own = [row for row in module.ROWS if not row.is_own]
    assert len({row.path for row in own}) == len(own)
    for row in own:
        assert (module.HERE / f"{row.command.split()[0]}.py").exists()


def test_results_that_are_kept_are_of_the_command_of_their_row(benchmark):
    for row in benchmark("flb1_table").ROWS:
        if row.path.exists() and not row.is_own:
            command = json.loads(row.path.read_text())["command"]
            script, *arguments = row.command.split()
            assert command.startswith(" ".join(["python", f"benchmarks/{script}.py", *arguments]))
