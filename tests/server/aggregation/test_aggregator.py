"""What every `Aggregator` must do, run against the one in this process and the one in another."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.aggregation.aggregator import Aggregator
from server.aggregation.mean import MeanAggregator, add_scaled
from server.aggregation.messages import SocketPathTooLong
from server.aggregation.process import AggregatorLost, RemoteAggregator
from server.aggregation.service import SocketInUse, serve
from server.coordination.tasks import Release, UpdateReference
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.update_examples import (
    FEDAVG,
    MODEL,
    changed,
    make_delta,
    make_envelope,
    make_job,
    make_payload,
)


def flat(*seeds: int) -> np.ndarray:
    """Independent oracle: the float64 sum of these deltas, concatenated."""
    return np.sum(
        [np.concatenate([a.ravel() for a in make_delta(s)]) for s in seeds], axis=0, dtype=float
    )


def fold(aggregator: Aggregator, seed: int, base_version: int = 0) -> UpdateReference:
    payload = make_payload(make_delta(seed))
    result = aggregator.fold(make_envelope(f"t{seed}", base_version, payload), payload)
    assert isinstance(result, UpdateReference), result
    return result


class AggregatorContract:
    """Subclasses give a fresh aggregator; its job is not yet open."""

    @pytest.fixture
    def fresh(self) -> Iterator[Aggregator]:
        raise NotImplementedError

    @pytest.fixture
    def aggregator(self, fresh) -> Aggregator:
        fresh.open("j-1", make_job(), MODEL)
        return fresh

    def test_a_sum_is_the_sum_of_what_was_folded(self, aggregator):
        for seed in (1, 2, 3):
            fold(aggregator, seed)
        (partial,) = aggregator.reduce(Release("r1"))
        np.testing.assert_allclose(partial.total, flat(1, 2, 3), rtol=1e-5, atol=1e-6)
        assert partial.total.dtype == np.float32
        assert partial.base_version == 0
        assert partial.weight == 3.0
        assert partial.task_ids == ("t1", "t2", "t3")

    def test_a_reference_says_what_was_folded_and_never_the_arrays(self, aggregator):
        reference = fold(aggregator, 5, base_version=2)
        assert reference.task_id == "t5"
        assert reference.client_id == "device-of-t5"
        assert reference.base_version == 2
        assert reference.num_examples == 10
        assert reference.weight == 1.0
        assert reference.update_norm == pytest.approx(np.linalg.norm(flat(5)), rel=1e-6)
        assert (reference.loss_before, reference.loss_after) == (0.7, 0.5)
        assert (reference.train_s, reference.bytes_down, reference.bytes_up) == (1.5, 10, 20)
        assert len(reference.payload_sha256) == 32

    def test_each_base_version_has_a_bucket_of_its_own(self, aggregator):
        fold(aggregator, 1, base_version=7)
        fold(aggregator, 2, base_version=8)
        fold(aggregator, 3, base_version=7)
        sums = {p.base_version: p for p in aggregator.reduce(Release("r1"))}
        assert sorted(sums) == [7, 8]
        np.testing.assert_allclose(sums[7].total, flat(1, 3), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sums[8].total, flat(2), rtol=1e-5, atol=1e-6)

    def test_a_release_of_some_base_versions_leaves_the_others(self, aggregator):
        fold(aggregator, 1, base_version=7)
        fold(aggregator, 2, base_version=8)
        (partial,) = aggregator.reduce(Release("r1", (8, 9)))
        assert partial.base_version == 8
        assert [r.task_id for r in aggregator.held()] == ["t1"]

    def test_examples_weigh_up_to_the_cap(self, fresh):
        capped = {**FEDAVG, "weighting": "examples", "max_examples": 20}
        fresh.open("j-1", make_job(strategy=capped), MODEL)
        for task, examples in (("a", 5), ("b", 90)):
            payload = make_payload(make_delta(1), num_examples=examples)
            fresh.fold(make_envelope(task, payload=payload), payload)
        (partial,) = fresh.reduce(Release("r1"))
        assert partial.weight == 25.0
        np.testing.assert_allclose(partial.total, 25.0 * flat(1), rtol=1e-5, atol=1e-5)

    def test_the_same_task_again_gets_its_reference_and_adds_nothing(self, aggregator):
        first = fold(aggregator, 1)
        assert fold(aggregator, 1) == first
        (partial,) = aggregator.reduce(Release("r1"))
        np.testing.assert_allclose(partial.total, flat(1), rtol=1e-6)
        assert fold(aggregator, 1) == first, "also while it is frozen"
        assert aggregator.held() == ()

    def test_a_refused_update_leaves_the_sum_untouched(self, aggregator):
        fold(aggregator, 1)
        bad = changed(make_payload(make_delta(2)), num_examples=10**9)
        result = aggregator.fold(make_envelope("bad", payload=bad), bad)
        assert isinstance(result, Rejection)
        assert result.reason is RejectionReason.TOO_MANY_EXAMPLES
        assert "1000000000" in result.detail
        (partial,) = aggregator.reduce(Release("r1"))
        np.testing.assert_array_equal(partial.total, flat(1).astype(np.float32))
        assert partial.task_ids == ("t1",)

    def test_the_same_release_gives_the_same_sums_and_later_arrivals_a_new_bucket(self, aggregator):
        fold(aggregator, 1)
        (first,) = aggregator.reduce(Release("r1"))
        fold(aggregator, 2)
        (again,) = aggregator.reduce(Release("r1"))
        np.testing.assert_array_equal(first.total, again.total)
        assert again.task_ids == first.task_ids == ("t1",)
        (later,) = aggregator.reduce(Release("r2"))
        np.testing.assert_array_equal(later.total, flat(2).astype(np.float32))
        assert aggregator.frozen() == ("r1", "r2")

    def test_a_release_of_nothing_is_empty_and_stays_so(self, aggregator):
        assert list(aggregator.reduce(Release("r1"))) == []
        fold(aggregator, 1)
        assert list(aggregator.reduce(Release("r1"))) == []

    def test_a_committed_release_is_forgotten_and_unknown_ones_are_ignored(self, aggregator):
        fold(aggregator, 1)
        aggregator.reduce(Release("r1"))
        aggregator.commit("r1")
        aggregator.commit("r1")
        aggregator.commit("never heard of")
        assert aggregator.frozen() == ()
        assert aggregator.held() == ()
        assert list(aggregator.reduce(Release("r2"))) == []

    def test_thawing_returns_updates_to_their_buckets_in_order_of_arrival(self, aggregator):
        fold(aggregator, 1, base_version=1)
        fold(aggregator, 2, base_version=2)
        before = [np.array(p.total) for p in aggregator.reduce(Release("r1"))]
        handed_out = aggregator.reduce(Release("r1"))
        fold(aggregator, 3, base_version=1)
        aggregator.thaw("r1")
        fold(aggregator, 4, base_version=2)
        assert [r.task_id for r in aggregator.held()] == ["t1", "t2", "t3", "t4"]
        assert aggregator.frozen() == ()
        sums = {p.base_version: p for p in aggregator.reduce(Release("r2"))}
        np.testing.assert_allclose(sums[1].total, flat(1, 3), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sums[2].total, flat(2, 4), rtol=1e-5, atol=1e-6)
        assert sums[1].weight == sums[2].weight == 2.0
        for old, out in zip(before, handed_out, strict=True):
            np.testing.assert_array_equal(old, out.total, "a sum handed out must not change")

    def test_dropping_a_bucket_names_its_tasks_and_spares_the_others(self, aggregator):
        fold(aggregator, 1, base_version=1)
        fold(aggregator, 2, base_version=2)
        fold(aggregator, 3, base_version=1)
        assert aggregator.drop(1) == ("t1", "t3")
        assert aggregator.drop(1) == ()
        assert [r.task_id for r in aggregator.held()] == ["t2"]

    def test_opening_the_same_job_again_keeps_what_is_held_and_another_forgets_it(self, aggregator):
        fold(aggregator, 1)
        aggregator.open("j-1", make_job(), MODEL)
        assert len(aggregator.held()) == 1
        aggregator.open("j-2", make_job(), MODEL)
        assert aggregator.held() == ()
        assert aggregator.frozen() == ()

    def test_before_any_job_is_open_updates_are_refused(self, fresh):
        payload = make_payload()
        result = fresh.fold(make_envelope("t", payload=payload), payload)
        assert isinstance(result, Rejection)

    def test_folds_from_many_threads_are_each_counted_once(self, aggregator):
        seeds = [seed for seed in range(40) for _ in range(2)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: fold(aggregator, seed), seeds))
        assert len(aggregator.held()) == 40
        (partial,) = aggregator.reduce(Release("r1"))
        assert partial.weight == 40.0
        np.testing.assert_allclose(partial.total, flat(*range(40)), rtol=1e-4, atol=1e-4)

    def test_whatever_is_frozen_while_others_fold_every_update_is_in_exactly_one_sum(
        self, aggregator
    ):
        done = threading.Event()
        sums = []

        def freeze() -> None:
            number = 0
            while not done.is_set():
                sums.extend(aggregator.reduce(Release(f"r{number}")))
                number += 1

        freezer = threading.Thread(target=freeze)
        freezer.start()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: fold(aggregator, seed, seed % 3), range(60)))
        done.set()
        freezer.join()
        sums.extend(aggregator.reduce(Release("last")))
        counted = sorted(task for partial in sums for task in partial.task_ids)
        assert counted == sorted(f"t{seed}" for seed in range(60))
        total = np.sum([p.total.astype(float) for p in sums], axis=0)
        np.testing.assert_allclose(total, flat(*range(60)), rtol=1e-4, atol=1e-4)


class TestMeanAggregator(AggregatorContract):
    @pytest.fixture
    def fresh(self) -> Aggregator:
        return MeanAggregator()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flint-") as folder:  # pytest's own paths are too long
        yield Path(folder) / "run" / "aggregator.sock"


def start_process(socket_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "server.aggregation", "--socket", str(socket_path)],
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def process() -> Iterator[RemoteAggregator]:
    """The client of an aggregator process that serves all contract tests."""
    with tempfile.TemporaryDirectory(prefix="flint-") as folder:
        socket_path = Path(folder) / "aggregator.sock"
        process = start_process(socket_path)
        try:
            remote = RemoteAggregator(socket_path)
            yield remote
            remote.close()
        finally:
            process.terminate()
            process.communicate(timeout=10)
        assert process.returncode == 0
        assert not socket_path.exists()


@pytest.mark.integration
class TestRemoteAggregator(AggregatorContract):
    """The same, with the plaintext in another process."""

    @pytest.fixture
    def fresh(self, process, request) -> Iterator[Aggregator]:
        if "before_any_job" in request.node.name:
            with tempfile.TemporaryDirectory(prefix="flint-") as folder:
                server = serve(MeanAggregator(), Path(folder) / "a.sock")
                remote = RemoteAggregator(Path(folder) / "a.sock")
                yield remote
                remote.close()
                server.stop(None).wait()
            return
        process.open("other", make_job(), MODEL)
        yield process

    def test_only_this_user_can_reach_the_socket(self, socket_path):
        server = serve(MeanAggregator(), socket_path)
        try:
            assert socket_path.stat().st_mode & 0o777 == 0o600
            assert socket_path.parent.stat().st_mode & 0o777 == 0o700
        finally:
            server.stop(None).wait()

    def test_sums_that_died_with_their_process_are_noticed(self, socket_path):
        process = start_process(socket_path)
        remote = RemoteAggregator(socket_path)
        remote.open("j-1", make_job(), MODEL)
        fold(remote, 1)
        process.kill()
        process.communicate(timeout=10)
        with pytest.raises(AggregatorLost, match=r"python -m server.aggregation.*FLN-1261"):
            fold(remote, 2)
        again = start_process(socket_path)  # over the socket the killed one left behind
        try:
            RemoteAggregator(socket_path).close()
            with pytest.raises(AggregatorLost):
                remote.held()
        finally:
            again.send_signal(signal.SIGTERM)
            again.communicate(timeout=10)
            remote.close()

    def test_a_gateway_that_starts_anew_finds_empty_sums(self, socket_path):
        """It knows none of the updates in them, and their devices are asked again."""
        server = serve(MeanAggregator(), socket_path)
        try:
            before = RemoteAggregator(socket_path)
            before.open("j-1", make_job(), MODEL)
            fold(before, 1)
            after = RemoteAggregator(socket_path)
            after.open("j-1", make_job(), MODEL)
            assert after.held() == ()
            with pytest.raises(AggregatorLost):
                before.held()
            before.close()
            after.close()
        finally:
            server.stop(None).wait()

    def test_a_second_aggregator_on_the_same_socket_says_so_in_one_sentence(self, socket_path):
        server = serve(MeanAggregator(), socket_path)
        try:
            second = start_process(socket_path)
            _, printed = second.communicate(timeout=30)
            assert second.returncode == 2
            assert b"FLN-1263" in printed
            assert b"Traceback" not in printed
        finally:
            server.stop(None).wait()

    def test_a_file_in_the_sockets_place_is_left_alone(self, socket_path):
        socket_path.parent.mkdir(parents=True)
        socket_path.write_text("mine")
        with pytest.raises(SocketInUse):
            serve(MeanAggregator(), socket_path)
        assert socket_path.read_text() == "mine"

    def test_a_path_no_socket_can_have_is_refused(self):
        with pytest.raises(SocketPathTooLong, match="FLN-1262"):
            RemoteAggregator(Path("/tmp") / ("x" * 120))

    def test_nobody_listening_is_noticed(self, socket_path):
        with pytest.raises(AggregatorLost):
            RemoteAggregator(socket_path, connect_timeout_s=0.2)


def test_the_aggregator_process_loads_no_training_framework():
    code = (
        "import sys, server.aggregation.service, server.aggregation.process\n"
        "print([m for m in ('torch', 'tensorflow', 'flwr', 'sqlalchemy') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ}
    )
    assert shown.stdout.strip() == b"[]"


@pytest.mark.parametrize("weight", [1.0, 0.25, 37.0])
def test_adding_in_chunks_equals_adding_at_once(weight):
    generator = np.random.default_rng(0)
    tensors = [generator.standard_normal(size).astype(np.float32) for size in (1, 1000, 4096, 77)]
    total = generator.standard_normal(1 + 1000 + 4096 + 77).astype(np.float32)
    expected = total + np.float32(weight) * np.concatenate(tensors)
    add_scaled(total, tensors, weight, np.empty(512, np.float32))
    np.testing.assert_array_equal(total, expected)
