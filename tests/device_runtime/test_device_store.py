import hashlib
import sqlite3
from datetime import UTC, datetime

import pytest

from device_runtime.device_store import (
    DeviceInUse,
    DeviceStore,
    Enrolment,
    PendingUpdate,
    UnreadableDevice,
)
from device_runtime.participation import UserSettings


def pending(task_id: str, payload: bytes, *, answered: bool = False) -> PendingUpdate:
    return PendingUpdate(
        task_id=task_id,
        job_id="j-1",
        payload_sha256=hashlib.sha256(payload).digest(),
        task_token=b"token",
        contract_sha256=b"contract",
        answered=answered,
        train_s=1.5,
        cpu_s=1.25,
        peak_memory_bytes=100,
        bytes_down=7,
    )


@pytest.fixture
def reopen(tmp_path):
    stores: list[DeviceStore] = []

    def open_again() -> DeviceStore:
        while stores:
            stores.pop().close()
        store = DeviceStore(tmp_path / "device")
        store.take()
        stores.append(store)
        return store

    yield open_again
    stores.pop().close()


def test_a_device_remembers_everything_that_makes_it_this_device(reopen):
    store = reopen()
    public_key = store.key.public_key_der
    store.save_enrolment(Enrolment("d-1", b"credential"))
    store.save_settings(UserSettings(opted_out=True, allowed_hours="22:00-06:00", min_battery=0.3))
    store.save_clock_offset_ms(-1234)
    store.save_policy_json("{}")
    store.record_participation("t-1", "j-1", "accepted", finished_at_s=1000.0)
    store.keep(pending("t-2", b"update"), b"update")

    again = reopen()
    assert again.key.public_key_der == public_key
    assert again.enrolment() == Enrolment("d-1", b"credential")
    assert again.settings() == UserSettings(True, "22:00-06:00", 0.3)
    assert (again.clock_offset_ms(), again.policy_json()) == (-1234, "{}")
    assert again.last_participation() == datetime.fromtimestamp(1000, UTC)
    assert again.pending() == [pending("t-2", b"update")]
    assert again.payload(again.pending()[0]) == b"update"


def test_a_new_device_knows_nothing_but_its_key(reopen):
    store = reopen()
    assert store.enrolment() is None
    assert store.settings() == UserSettings()
    assert store.policy_json() is None
    assert store.last_participation() is None
    assert store.pending() == []


def test_only_the_owner_may_read_what_identifies_the_device(reopen, tmp_path):
    reopen()
    files = [path for path in (tmp_path / "device").iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"device.sqlite", "device.sqlite-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (tmp_path / "device" / "updates").stat().st_mode & 0o777 == 0o700


def test_a_settled_update_leaves_nothing_behind(reopen, tmp_path):
    store = reopen()
    store.keep(pending("t-1", b"one"), b"one")
    store.keep(pending("t-2", b"one"), b"one")
    store.forget("t-1")
    store.forget("never heard of")
    assert [u.task_id for u in store.pending()] == ["t-2"]
    assert store.payload(store.pending()[0]) == b"one"
    store.forget("t-2")
    assert list((tmp_path / "device" / "updates").iterdir()) == []


def test_a_task_id_is_never_taken_for_a_path(reopen, tmp_path):
    store = reopen()
    store.keep(pending("../../../escaped", b"one"), b"one")
    assert len(list((tmp_path / "device" / "updates").iterdir())) == 1
    assert not list(tmp_path.parent.glob("*escaped*"))


def test_a_torn_update_file_is_not_used(reopen, tmp_path):
    store = reopen()
    store.keep(pending("t-1", b"update"), b"update")
    (path,) = (tmp_path / "device" / "updates").iterdir()
    path.write_bytes(b"upd")
    assert store.payload(store.pending()[0]) is None
    path.unlink()
    assert store.payload(store.pending()[0]) is None


def test_bytes_without_a_row_are_removed_at_the_next_start(reopen, tmp_path):
    store = reopen()
    store.keep(pending("t-1", b"update"), b"update")
    (tmp_path / "device" / "updates" / "orphan.new").write_bytes(b"half")
    store = reopen()
    assert len(list((tmp_path / "device" / "updates").iterdir())) == 1
    assert store.payload(store.pending()[0]) == b"update"


def test_the_first_word_on_a_task_says_when_it_finished(reopen):
    store = reopen()
    store.record_participation("t-1", "j-1", "accepted", finished_at_s=1000.0)
    store.record_participation("t-1", "j-1", "committed", finished_at_s=9000.0)
    assert store.participations() == [("t-1", "j-1", "committed")]
    assert store.last_participation() == datetime.fromtimestamp(1000, UTC)


def test_history_is_bounded(reopen):
    store = reopen()
    for number in range(1010):
        store.record_participation(f"t-{number}", "j-1", "accepted", finished_at_s=number)
    kept = store.participations()
    assert len(kept) == 1000
    assert kept[0][0] == "t-1009"


def test_two_processes_do_not_run_one_device(reopen, tmp_path):
    reopen()
    second = DeviceStore(tmp_path / "device")
    with pytest.raises(DeviceInUse, match="FLN-1407"):
        second.take()
    second.close()


def test_settings_may_be_changed_while_the_device_runs(reopen, tmp_path):
    store = reopen()
    settings_screen = DeviceStore(tmp_path / "device")
    settings_screen.save_settings(UserSettings(opted_out=True))
    settings_screen.close()
    assert store.settings().opted_out


def test_something_else_in_the_devices_place_is_refused(tmp_path):
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "device.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(UnreadableDevice, match="FLN-1406"):
        DeviceStore(tmp_path / "device")
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableDevice):
        DeviceStore(tmp_path / "file")


def test_a_device_of_a_later_schema_is_refused(reopen, tmp_path):
    reopen()
    with sqlite3.connect(tmp_path / "device" / "device.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UnreadableDevice, match="schema 99"):
        DeviceStore(tmp_path / "device")
