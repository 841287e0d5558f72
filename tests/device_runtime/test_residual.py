"""What compressed updates leave out: nothing is lost and nothing counts twice, whatever happens."""

import hashlib
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.device_store import DeviceStore, PendingUpdate
from device_runtime.residual import MOST_UNSENT

SIZE = 40


def pending(task_id: str, job_id: str = "j-1") -> PendingUpdate:
    payload_sha256 = hashlib.sha256(task_id.encode()).digest()
    return PendingUpdate(task_id, job_id, payload_sha256, b"", b"", True, 1.0, 1.0, 1, 1)


def keep(store: DeviceStore, task_id: str, value: float, job_id: str = "j-1") -> PendingUpdate:
    update = pending(task_id, job_id)
    store.keep(update, task_id.encode(), np.full(SIZE, value, np.float32))
    return update


def residual(store: DeviceStore, job_id: str = "j-1") -> float:
    """The residual, all of whose values are equal here."""
    found = store.residual(job_id, SIZE)
    if found is None:
        return 0.0
    assert found.shape == (SIZE,)
    assert np.all(found == found[0])
    return float(found[0])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "device"


@pytest.fixture
def reopen(folder):
    """Close the device's store, if it is open, and open it as the next process would."""
    stores: list[DeviceStore] = []

    def open_again() -> DeviceStore:
        while stores:
            stores.pop().close()
        store = DeviceStore(folder)
        store.take()
        stores.append(store)
        return store

    yield open_again
    while stores:
        stores.pop().close()


def test_what_was_left_out_is_there_for_the_next_task_also_in_the_next_process(reopen):
    store = reopen()
    assert residual(store) == 0
    first = keep(store, "t-1", 2.0)
    assert residual(store) == 2.0
    store.settle(first, counted=True)
    assert residual(store) == 2.0
    keep(store, "t-2", 0.5)
    assert residual(reopen()) == 2.5


def test_an_update_that_does_not_count_takes_what_it_left_out_with_it(reopen, folder):
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    dropped, later = keep(store, "t-2", 4.0), keep(store, "t-3", 8.0)
    store.settle(dropped, counted=False)
    assert residual(store) == 10.0
    store.settle(later, counted=True)
    store.forget("t-9")
    assert residual(store) == 10.0
    assert len(list((folder / "updates").iterdir())) == 1


@dataclass
class Learning:
    """One device that learns a value with each task and sends some of what it owes."""

    learned: dict[str, float] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)


@given(
    st.lists(st.tuples(st.sampled_from(["train", "count", "drop", "reopen"]), st.integers(0, 9)))
)
@settings(max_examples=60)
def test_counted_updates_and_the_residual_add_up_to_what_counted_tasks_learned(
    tmp_path_factory, steps
):
    """The invariant of error feedback, over any fates of updates, in powers of two: exactly."""
    folder = tmp_path_factory.mktemp("devices") / "device"
    store = DeviceStore(folder)
    store.take()
    world, waiting = Learning(), []
    for number, (step, pick) in enumerate(steps):
        if step == "train" and len(waiting) < MOST_UNSENT:
            task_id, learned = f"t-{number}", float(1 + pick)
            owed = learned + residual(store)
            sent = owed * 0.25
            world.learned[task_id], world.sent[task_id] = learned, sent
            waiting.append(keep(store, task_id, learned - sent))
        elif step == "reopen":
            store.close()
            store = DeviceStore(folder)
            store.take()
        elif waiting and step in ("count", "drop"):
            update = waiting.pop(pick % len(waiting))
            store.settle(update, counted=step == "count")
            if step == "drop":
                del world.learned[update.task_id], world.sent[update.task_id]
        assert sum(world.sent.values()) + residual(store) == pytest.approx(
            sum(world.learned.values()), rel=1e-5, abs=1e-5
        )
    store.close()


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it happens."""


@pytest.mark.parametrize("statement", range(4))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_device_killed_while_it_counts_counts_once(reopen, monkeypatch, statement, after):
    """Whatever has been written, the update is counted or still pending, never both nor neither."""
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    update = keep(store, "t-2", 4.0)
    database, done = store._residual._database, 0

    class Dying:
        def execute(self, *arguments):
            nonlocal done
            if arguments[0].startswith("SELECT"):
                return database.execute(*arguments)
            if done == statement and not after:
                raise Killed
            result = database.execute(*arguments)
            done += 1
            if done == statement + 1 and after:
                raise Killed
            return result

    monkeypatch.setattr(store._residual, "_database", Dying())
    with suppress(Killed):
        store.settle(update, counted=True)
    store = reopen()
    assert residual(store) == 6.0
    for each in store.pending():
        store.settle(each, counted=True)
    assert (residual(store), store.pending()) == (6.0, [])


def test_another_jobs_task_ends_it(reopen, folder):
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    late = keep(store, "t-2", 4.0)
    store.keep_residual_of("j-1")
    assert residual(store) == 6.0
    store.keep_residual_of("j-2")
    assert residual(store, "j-2") == 0
    store.settle(keep(store, "t-3", 8.0, "j-2"), counted=True)
    store.settle(late, counted=False)
    assert residual(store, "j-2") == 8.0
    assert residual(store, "j-1") == 0
    assert len(list((folder / "updates").iterdir())) == 1


def test_an_update_of_a_job_that_is_over_does_not_displace_the_residual_of_the_next(reopen):
    store = reopen()
    late = keep(store, "t-1", 4.0)
    store.keep_residual_of("j-2")
    store.settle(keep(store, "t-2", 8.0, "j-2"), counted=True)
    store.settle(late, counted=True)
    assert residual(store, "j-2") == 8.0


def test_all_of_it_can_be_forgotten_and_the_updates_stay(reopen, folder):
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    update = keep(store, "t-2", 4.0)
    store.forget_residual()
    assert residual(store) == 0
    assert store.payload(update) == b"t-2"
    assert len(list((folder / "updates").iterdir())) == 1


def test_only_a_few_pending_updates_keep_what_they_left_out(reopen, folder):
    store = reopen()
    for number in range(10):
        keep(store, f"t-{number}", 1.0)
    assert residual(store) == MOST_UNSENT
    assert len(store.pending()) == 10
    assert len(list((folder / "updates").iterdir())) == 10 + MOST_UNSENT


def test_a_torn_file_or_one_of_another_model_counts_as_nothing(reopen, folder):
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    assert store.residual("j-1", SIZE + 1) is None
    (path,) = (folder / "updates").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    assert residual(store) == 0
    store.settle(keep(store, "t-2", 4.0), counted=True)
    assert residual(store) == 4.0


def test_values_that_left_the_numbers_are_not_carried(reopen):
    store = reopen()
    for number in range(2):
        update = pending(f"t-{number}")
        store.keep(update, b"", np.full(SIZE, 3e38, np.float32))
    assert store.residual("j-1", SIZE) is None


def test_only_the_owner_may_read_what_was_left_out(reopen, folder):
    store = reopen()
    store.settle(keep(store, "t-1", 2.0), counted=True)
    keep(store, "t-2", 2.0)
    modes = {path.stat().st_mode & 0o777 for path in (folder / "updates").iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("schema", [1, 2])
def test_a_device_of_an_older_schema_goes_on(reopen, folder, schema):
    store = reopen()
    update = pending("t-1")
    store.keep(update, b"t-1")
    key = store.key.public_key_der
    with sqlite3.connect(folder / "device.sqlite") as database:
        for column in ("sealed_for", "secure_aggregation"):
            database.execute(f"ALTER TABLE pending_updates DROP COLUMN {column}")
        if schema == 1:
            database.execute("DROP TABLE residual")
        database.execute(f"PRAGMA user_version = {schema}")
    database.close()
    store = reopen()
    assert store.key.public_key_der == key
    assert store.pending() == [update]
    store.settle(keep(store, "t-2", 1.0), counted=True)
    assert residual(store) == 1.0
