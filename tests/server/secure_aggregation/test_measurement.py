"""Two machines with the same install measure the same; any changed byte measures otherwise."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.secure_aggregation.measurement import (
    PACKAGES,
    Install,
    UnmeasurableInstall,
    measure,
)

CONFIGURATION = {"mode": "enclave", "provider": "software_root"}


def install_distribution(site: Path, name: str, version: str, files: dict[str, str], **metadata):
    """Lay a distribution down as pip does: files, metadata, record, and pip's own notes."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in metadata.get("extras", ())]
    lines += [f"Requires-Dist: {line}" for line in metadata.get("requires", ())]
    script = f"#!{site}/bin/python\n"
    files = files | {f"{info}/METADATA": "\n".join(lines), f"../bin/{name}": script}
    record = []
    for place, text in files.items():
        path = site / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record.append(f"{place},sha256={digest.rstrip('=')},{len(text)}")
    for note, text in {"INSTALLER": "pip", "direct_url.json": str(site), "RECORD": ""}.items():
        (site / info / note).write_text(text)
        record.append(f"{info}/{note},,")
    (site / info / "RECORD").write_text("\n".join(record) + "\n")


def make_install(folder: Path) -> Install:
    """A small install of FLINT below ``folder``, of a tree of sources and a site directory."""
    sources, site = folder / "sources", folder / "site"
    for package in PACKAGES:
        (sources / package / "inner").mkdir(parents=True)
        (sources / package / "__init__.py").write_text("")
        (sources / package / "inner" / "module.py").write_text(f"NAME = {package!r}\n")
    (sources / "constraints.txt").write_text("numpy==1.0\n")
    install_distribution(
        site,
        "flint_on_flower",
        "0.1.0",
        {"__editable__.py": str(folder)},
        extras=("device",),
        requires=("numpy>=1", 'grpc; extra == "device"', 'absent; extra == "server"'),
    )
    install_distribution(site, "numpy", "1.0", {"numpy/__init__.py": "", "numpy/core.so": "elf"})
    install_distribution(
        site, "grpc", "2.0", {"grpc.py": "CALL = 1\n"}, requires=("Typing.Extra>=1",)
    )
    install_distribution(site, "typing_extra", "3.0", {"typing_extra.py": ""})
    install_distribution(site, "unneeded", "4.0", {"unneeded.py": str(folder)})
    return Install(
        sources=sources, search_path=(str(site),), requirements=("flint-on-flower[device]",)
    )


@pytest.fixture
def install(tmp_path):
    return make_install(tmp_path / "machine")


def test_the_same_install_in_another_folder_measures_the_same(install, tmp_path):
    other = make_install(tmp_path / "a" / "machine" / "elsewhere")
    compiled = other.sources / "server" / "__pycache__" / "module.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"compiled")
    assert measure(CONFIGURATION, install) == measure(dict(reversed(CONFIGURATION.items())), other)


def test_the_value_is_the_digest_of_the_breakdown(install):
    measured = measure(CONFIGURATION, install)
    canonical = json.dumps(measured.breakdown, sort_keys=True, separators=(",", ":"))
    assert measured.value == hashlib.sha256(canonical.encode()).digest()


def test_the_breakdown_names_what_was_measured(install):
    breakdown = measure(CONFIGURATION, install).breakdown
    assert sorted(breakdown) == [
        "configuration:mode",
        "configuration:provider",
        "distribution:grpc",
        "distribution:numpy",
        "distribution:typing-extra",
        "interpreter",
        "lock_file",
        "source:device_runtime",
        "source:feature_catalog",
        "source:modeling",
        "source:server",
    ]
    assert breakdown["configuration:mode"] == "enclave"


def test_an_install_without_a_lock_file_says_so(install):
    locked = measure(CONFIGURATION, install)
    (install.sources / "constraints.txt").unlink()
    unlocked = measure(CONFIGURATION, install)
    assert unlocked.breakdown["lock_file"] == "none: this install has no lock file"
    assert unlocked.value != locked.value


SOURCE_CHANGES = {
    "a byte": lambda package: (package / "inner" / "module.py").write_text("NAME = 'x'\n"),
    "a new file": lambda package: (package / "new.py").write_text(""),
    "a new name": lambda package: (package / "__init__.py").rename(package / "other.py"),
    "a file gone": lambda package: (package / "__init__.py").unlink(),
}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("change", SOURCE_CHANGES)
def test_a_change_of_our_sources_measures_otherwise_and_says_where(install, package, change):
    before = measure(CONFIGURATION, install)
    SOURCE_CHANGES[change](install.sources / package)
    after = measure(CONFIGURATION, install)
    assert after.value != before.value
    differing = {key for key, value in after.breakdown.items() if before.breakdown[key] != value}
    assert differing == {f"source:{package}"}


@pytest.mark.parametrize(
    "changed", [{"mode": "masked"}, {"mode": "enclave", "more": ""}, {}], ids=str
)
def test_another_configuration_measures_otherwise(install, changed):
    assert measure(changed, install).value != measure(CONFIGURATION, install).value


def test_another_version_of_a_package_measures_otherwise(tmp_path, install):
    before = measure(CONFIGURATION, install)
    site = Path(install.search_path[0])
    newer = tmp_path / "newer"
    install_distribution(newer, "numpy", "1.1", {"numpy/__init__.py": ""})
    after = measure(
        CONFIGURATION,
        Install(install.sources, (str(newer), str(site)), install.requirements),
    )
    assert after.breakdown["distribution:numpy"].startswith("1.1 ")
    assert after.value != before.value


def test_a_byte_of_a_package_changed_after_its_install_is_not_measured_at_all(install):
    (Path(install.search_path[0]) / "numpy" / "core.so").write_text("elg")
    with pytest.raises(UnmeasurableInstall, match=r"core\.so is not the file"):
        measure(CONFIGURATION, install)


def test_a_file_of_a_package_gone_is_said(install):
    (Path(install.search_path[0]) / "grpc.py").unlink()
    with pytest.raises(UnmeasurableInstall, match=r"grpc\.py, a file of grpc, cannot be read"):
        measure(CONFIGURATION, install)


def test_a_package_that_is_needed_and_not_there_is_said(install):
    whole = Install(install.sources, install.search_path, ("flint-on-flower[server]",))
    with pytest.raises(UnmeasurableInstall, match="absent is not installed, which flint-on-flower"):
        measure(CONFIGURATION, whole)


def test_what_grpc_loads_where_it_is_installed_is_measured_there(install):
    before = measure(CONFIGURATION, install)
    site = Path(install.search_path[0])
    install_distribution(site, "grpcio_tools", "1.0", {"grpc_tools.py": ""})
    after = measure(CONFIGURATION, install)
    assert set(after.breakdown) - set(before.breakdown) == {"distribution:grpcio-tools"}


def test_remains_of_an_uninstall_change_nothing(install):
    before = measure(CONFIGURATION, install)
    (Path(install.search_path[0]) / "~umpy-0.9.dist-info").mkdir()
    assert measure(CONFIGURATION, install) == before


def test_a_package_without_a_record_is_said(install):
    next(Path(install.search_path[0]).glob("numpy-*/RECORD")).unlink()
    with pytest.raises(UnmeasurableInstall, match="numpy has no record"):
        measure(CONFIGURATION, install)


@pytest.mark.integration
def test_what_an_enclave_process_imports_of_this_very_install_is_measured():
    """Only what an environment's start-up hooks load may be beside it."""
    script = (
        "import device_runtime.attestation_nitro\n"
        "import server.secure_aggregation.__main__\n"
        "import server.secure_aggregation.attesters.nitro\n"
        "from server.secure_aggregation.measurement import measure, unmeasured_modules\n"
        "measure({})\n"
        "print(unmeasured_modules())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert set(eval(result.stdout)) <= {"__main__", "_distutils_hack"}
