"""Manifests made once for all devices of a kind, in bounded memory."""

from collections import Counter

from device_runtime.manifest_parser import parse_manifest
from feature_catalog.definitions.contracts import freeze
from feature_catalog.on_device import DeviceProfile, StorageClass
from feature_catalog.service.device_manifest import ManifestMaker
from feature_catalog.service.made_manifests import KNOWN_FOR_S, MadeManifests, StoredFiles
from feature_catalog.service.served_contracts import ServedContract
from tests.feature_catalog.definitions.examples import parsed

PROFILES = [DeviceProfile(storage_class=each) for each in StorageClass]


def example() -> ServedContract:
    given = parsed()
    return ServedContract(freeze(given, given.service("ads_ctr_v1")), given)


def test_devices_of_one_kind_share_a_manifest_until_a_file_comes():
    files: set[bytes] = set()
    made = MadeManifests(ManifestMaker(files.__contains__, lambda _: {}))
    first = made.get(example(), PROFILES[0])
    assert made.get(example(), PROFILES[0]) is first
    assert parse_manifest(first.content).refused_features == {"category"}
    files.update(example().device_assets)
    second = made.get(example(), PROFILES[0])
    assert parse_manifest(second.content).refused_features == frozenset()
    assert made.get(example(), PROFILES[1]) is not second


def test_no_more_bytes_are_kept_than_allowed_but_the_one_just_made():
    made = MadeManifests(ManifestMaker(lambda _: True, lambda _: {}), max_bytes=1)
    kept = [made.get(example(), profile) for profile in PROFILES]
    assert made.get(example(), PROFILES[-1]) is kept[-1]
    assert made.get(example(), PROFILES[0]) is not kept[0]


def test_a_file_that_is_there_is_not_looked_for_each_time_and_one_that_is_not_is():
    now_s, files, looked = [0.0], {b"there"}, Counter()

    def is_stored(digest: bytes) -> bool:
        looked[digest] += 1
        return digest in files

    stored = StoredFiles(is_stored, clock=lambda: now_s[0])
    for _ in range(3):
        assert stored(b"there")
        assert not stored(b"not yet")
    assert looked == {b"there": 1, b"not yet": 3}
    files.clear()
    now_s[0] += KNOWN_FOR_S
    assert not stored(b"there")
