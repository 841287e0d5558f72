"""Real phones are selected by serial number or pool ARN; a slip is told before anything is done."""

import pytest

from android_bench.devices.adb import AndroidApp
from android_bench.devices.adb_connection import NoSuchAdbDevice
from android_bench.devices.device_farm import InvalidFarmTarget
from android_bench.devices.phones import PhoneOptions
from android_bench.devices.select import SelectContext, UnknownBenchDevice, select_groups
from tests.android_bench.devices.test_adb import Lab, lab

__all__ = ["lab"]

POOL = "arn:aws:devicefarm:us-west-2:123456789012:devicepool:5e01a8c7/e1c97f71"
RUN = "arn:aws:devicefarm:us-west-2:123456789012:run:5e01a8c7/0fcac17b"


def names(text: str, **options) -> list[str]:
    return [g.name for g in select_groups(text, SelectContext(phones=PhoneOptions(**options)))]


def test_phones_are_named_by_serial_or_are_the_only_one(lab: Lab):
    assert names("adb") == ["adb:one"]
    lab.connect(one={}, two={}, **{"192.0.2.7:5555": {}})
    assert names("adb:two,one") == ["adb:two", "adb:one"]
    assert names("adb:192.0.2.7:5555") == ["adb:192.0.2.7:5555"]
    with pytest.raises(NoSuchAdbDevice):
        names("adb:one,three")


def test_a_pool_is_named_by_its_arn(tmp_path):
    apks = [tmp_path / name for name in ("app.apk", "test.apk")]
    for apk in apks:
        apk.write_bytes(b"PK")
    assert names(f"device-farm:{POOL}", app=AndroidApp(*apks)) == ["device-farm:e1c97f71"]
    assert names(f"device-farm:{POOL}", resume_run=RUN) == ["device-farm:e1c97f71"]


@pytest.mark.parametrize(
    ("text", "options", "error", "said"),
    [
        ("device-farm", {}, InvalidFarmTarget, "names no device pool"),
        ("device-farm:here", {}, InvalidFarmTarget, "'here' is no device pool"),
        (f"device-farm:{POOL}", {}, InvalidFarmTarget, "needs the APKs"),
        (f"device-farm:{POOL},{POOL}x", {"resume_run": RUN}, InvalidFarmTarget, "one run"),
        ("device-frm:x", {}, UnknownBenchDevice, "did you mean device-farm"),
    ],
)
def test_what_cannot_be_selected_is_told_with_the_mend(text, options, error, said):
    with pytest.raises(error, match=said):
        names(text, **options)
