"""`flint catalog explain`, as a user types it; definitions from files need no server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from feature_catalog.devices import DeviceRegistry
from feature_catalog.measurements import Measurements
from feature_catalog.on_device import DeviceProfile, DeviceRules, StorageClass
from flint.cli import entry
from flint.device_profiles import (
    UnknownDeviceProfile,
    find_device_profile,
    known_device_profiles,
)
from server.operations.settings import ServerSettings
from tests.feature_catalog.test_measurements import MEASURED

EXAMPLE = Path(__file__).parents[2] / "examples" / "features" / "features.yaml"


@pytest.fixture
def flint(capsys):
    """Run a command: exit code, what it prints, what it says on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def explain(flint):
    def run(*arguments: object) -> tuple[int, str, str]:
        return flint("catalog", "explain", "ads_ctr_v1", "--definitions", EXAMPLE, *arguments)

    return run


def test_explain_shows_what_is_stored_cached_downloaded_and_transformed(explain):
    code, out, _ = explain("--device", "tier-26", "--metered")
    assert code == 0
    assert out.startswith("ads_ctr_v1 on Emulated tier 26: storage class small")
    for words in (
        "stored on the device",
        "5,000 events, 2,000,000 bytes, 30d",
        "on_demand",
        "vocab ad_categories",
        "user_stats is fetched over an unmetered network only",
        "at most 4,382,066 bytes",
    ):
        assert words in out


def test_explain_for_programs_is_one_value_on_one_line(explain):
    code, out, err = explain("--memory-mb", 2000, "--free", "1GB", "--locale", "pt-BR", "--json")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["device"] == {
        "device_model": "this device",
        "memory_mb": 2000.0,
        "free_bytes": 10**9,
        "locale": "pt-BR",
    }
    assert found["storage_class"] == "small"
    assert found["complete"] is True
    parts = ("stored", "cached", "downloaded", "file_overhead")
    totals = found["totals"]
    assert totals["total_bytes"] == sum(totals[f"{part}_bytes"] for part in parts)


def test_rules_from_a_file_count_and_the_exit_code_tells_of_refusals(explain, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("budgets: {large: {asset_bytes: 40B}}\n")
    code, out, _ = explain("--device", "large", "--rules", rules, "--exit-code")
    assert code == 3
    assert "takes at most 40 of one asset" in out
    assert "1 of 7 features cannot be had" in out
    assert explain("--device", "large", "--exit-code")[0] == 0


def test_a_profile_file_may_say_all_of_a_device(explain, tmp_path):
    profile = tmp_path / "phone.yaml"
    profile.write_text(
        "device_model: Pixel 3\nmemory_mb: 4000\nfree_bytes: 2GB\nunmetered: false\n"
    )
    code, out, _ = explain("--device", profile)
    assert code == 0
    assert out.startswith("ads_ctr_v1 on Pixel 3: storage class medium")


def test_all_devices_are_a_row_each(explain, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("min_os_release: 2018-08\n")
    code, out, _ = explain("--device", "all", "--rules", rules)
    assert code == 0
    assert "refused: os_too_old" in out
    code, out, _ = explain("--device", "all", "--rules", rules, "--json", "--exit-code")
    assert code == 3
    found = json.loads(out)
    assert len(found) == 30
    old = {
        name
        for name, each in found.items()
        if each["device"].get("os_release", "2018-08") < "2018-08"
    }
    assert {name for name, each in found.items() if not each["complete"]} == old
    assert f"{30 - len(old)} of 30 devices" in explain("--device", "all", "--rules", rules)[1]


def test_without_rules_those_of_the_deployment_count(explain, tmp_path):
    def asset_bytes(*arguments: object) -> int:
        code, out, err = explain("--device", "large", "--home", tmp_path, "--json", *arguments)
        assert code == 0, err
        return int(json.loads(out)["budget"]["asset_bytes"])

    of_deployment = DeviceRules.from_json({"budgets": {"large": {"asset_bytes": "5MB"}}})
    assert asset_bytes() == DeviceRules().budgets[StorageClass.LARGE].asset_bytes
    settings = ServerSettings(tmp_path, "", "", "", "", "", 0, 0)
    replace(settings, device_rules=of_deployment.to_json()).save()
    assert asset_bytes() == 5_000_000
    rules = tmp_path / "rules.yaml"
    rules.write_text("budgets: {large: {asset_bytes: 6MB}}\n")
    assert asset_bytes("--rules", rules) == 6_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which device"),
        (("--device", "tier26"), "did you mean tier-26?"),
        (("--device", "gone.yaml"), "there is no device profile gone.yaml"),
        (("--device", "small", "--free", "lots"), "such as 2MB"),
        (("--device", "small", "--locale", "portuguese"), "a language tag"),
        (("--device", "small", "--storage-class", "huge"), "small, medium, large"),
        (("--device", "small", "--rules", "gone.yaml"), "there is no file of device rules"),
    ],
)
def test_a_mistake_is_one_sentence(explain, arguments, said):
    code, out, err = explain(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert said in line
    assert "Traceback" not in line


def test_an_unknown_service_is_told_with_what_there_is(flint):
    code, _, err = flint(
        "catalog", "explain", "ads_ctr", "--definitions", EXAMPLE, "--device", "small"
    )
    assert code == 2
    assert "did you mean ads_ctr_v1?" in err


def test_a_file_that_is_no_profile_is_named(explain, tmp_path):
    path = tmp_path / "phone.yaml"
    path.write_text("memory: 4000\n")
    assert f"{path}: memory is nothing a device profile says" in explain("--device", path)[2]
    path.write_text("- a\n")
    assert "must be a mapping of keys" in explain("--device", path)[2]


def test_devices_are_found_by_name_and_by_model():
    assert find_device_profile("tier-01") == find_device_profile("Emulated tier 01")
    assert find_device_profile("tier-01").memory_mb == 8000
    with pytest.raises(UnknownDeviceProfile):
        find_device_profile("x" * 5000)


@pytest.mark.integration
def test_the_catalogs_services_and_their_older_contracts_are_explained(
    flint, database_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("FLINT_DATABASE_URL", database_url)
    monkeypatch.setenv("FLINT_HOME", str(tmp_path))
    assert flint("catalog", "apply", EXAMPLE)[0] == 0
    _, out, _ = flint("catalog", "show", "ads_ctr_v1", "--json")
    old = json.loads(out)["contract_sha256"]
    changed = tmp_path / "changed.yaml"
    changed.write_text(EXAMPLE.read_text().replace("max_bytes: 2MB", "max_bytes: 1MB"))
    assert flint("catalog", "apply", changed)[0] == 0

    def kept(service: str) -> int:
        code, out, err = flint("catalog", "explain", service, "--device", "medium", "--json")
        assert code == 0, err
        return json.loads(out)["stored"][0]["retention"]["max_bytes"]

    assert kept("ads_ctr_v1") == 1_000_000
    assert kept(f"ads_ctr_v1@{old[:12]}") == 2_000_000
    code, _, err = flint("catalog", "explain", "ads_ctr_v1@00", "--device", "medium")
    assert code == 2
    assert "no such contract" in err


@pytest.mark.integration
def test_measured_models_and_enrolled_devices_are_known_by_name(engine, blobs):
    measurements, devices = Measurements(engine, blobs), DeviceRegistry(engine)
    measurements.add(replace(MEASURED, device_model="Pixel 6", device_memory_mb=2000.0), b"1")
    measurements.add(replace(MEASURED, device_model="Odd", device_memory_mb=0.0), b"2")
    token = devices.create_enrolment_token(2, 60)
    devices.enrol(token, "d-1", b"1", "app", "Pixel 6", "2024-10")
    devices.enrol(token, "d-2", b"2", "app", "Unheard of", "16")

    def found(name: str) -> DeviceProfile:
        return find_device_profile(name, measurements=measurements, engine=engine)

    assert found("Pixel 6") == DeviceProfile("Pixel 6", "2023-10", 2000.0)
    assert found("Odd").memory_mb is None
    assert found("d-1") == DeviceProfile("Pixel 6", "2024-10", 2000.0)
    assert found("d-2") == DeviceProfile("Unheard of")
    assert len(known_device_profiles(measurements)) == 32
    with pytest.raises(UnknownDeviceProfile, match="did you mean Pixel 6"):
        found("Pixel6")
