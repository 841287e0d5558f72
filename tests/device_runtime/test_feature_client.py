"""The device's half of the feature service, without a gateway: what it keeps, what it refuses."""

import contextlib
import dataclasses
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.feature_client import (
    DamagedAsset,
    FeatureClient,
    _age_in_cache_s,
    _rows,
    _unpacked,
)
from device_runtime.feature_manifest import ManifestAsset
from device_runtime.feature_reader import FetchFailed
from device_runtime.feature_values import encode_row
from device_runtime.gateway_client import open_channel
from device_runtime.kept_manifests import KeptManifests
from device_runtime.manifest_parser import parse_manifest
from device_runtime.protocol import features_pb2 as pb
from tests.device_runtime.manifests import manifest, view

ASSET = ManifestAsset("words", "words", "vocabulary", bytes(32), 100)


@given(
    st.binary(max_size=300) | st.binary(max_size=300).map(zlib.compress),
    st.integers(0, 2**32 - 1) | st.integers(0, 300),
    st.sampled_from(["", "zlib", "gzip"]),
)
def test_a_chunk_is_exactly_what_it_says_or_refused(data, size_bytes, compression):
    chunk = pb.AssetChunk(data=data, size_bytes=size_bytes, compression=compression)
    with contextlib.suppress(DamagedAsset):
        assert len(_unpacked(chunk, ASSET)) == size_bytes <= 2**20


@given(
    st.lists(
        st.builds(
            pb.FeatureRow,
            status=st.sampled_from([0, 1, 2, 3]),
            age_s=st.floats(),
            values=st.binary(max_size=20) | st.just(encode_row({"a": 1})),
        ),
        max_size=3,
    )
)
def test_rows_are_taken_whole_or_the_fetch_has_failed(rows):
    keys = [b"k1", b"k2"]
    try:
        found = _rows(view(), keys, pb.GetFeaturesResponse(rows=rows))
    except FetchFailed:
        return
    assert set(found) <= set(keys)
    assert all(row.age_s >= 0 for row in found.values())


@pytest.mark.parametrize(
    ("ttl_s", "max_age_s", "age_s", "expected"),
    [
        (None, 100, 5_000, 0),  # true until the next row: only the cache's age counts
        (1_000, 100, 0, 0),
        (1_000, 100, 900, 0),  # leaves the cache just when it is not true any more
        (1_000, 100, 950, 50),
        (1_000, 1_000, 950, 950),
        (1_000, None, 950, 0),
    ],
)
def test_a_row_is_cached_for_its_max_age_and_no_longer_than_it_is_true(
    ttl_s, max_age_s, age_s, expected
):
    assert _age_in_cache_s(view(ttl_s=ttl_s, max_age_s=max_age_s), age_s) == expected


def test_the_newest_manifests_of_sixteen_contracts_are_kept(tmp_path):
    kept = KeptManifests(tmp_path)
    for number in range(20):
        made = manifest(f"service_{number}", bytes([number]) * 32)
        kept.keep(made, made.to_json().encode())
        os.utime(next(p for p in tmp_path.iterdir() if f"_{number}." in p.name), (number, number))
    assert len(list(tmp_path.iterdir())) == 16
    assert kept.find("service_0", b"") is None
    assert kept.find("service_19", bytes([19]) * 32).manifest.service == "service_19"
    assert kept.find("service_1", b"") is None  # and not service_19, which begins alike
    assert len(kept.all()) == 16


def test_a_new_manifest_takes_the_place_of_the_one_before(tmp_path):
    kept = KeptManifests(tmp_path)
    first = manifest("ads", bytes(32))
    second = dataclasses.replace(first, views={"v": view(ttl_s=7)})
    for each in (first, second, second):
        kept.keep(each, each.to_json().encode())
    assert [parse_manifest(p.read_bytes()) for p in tmp_path.iterdir()] == [second]


def test_a_cache_is_opened_with_the_views_of_every_service_the_device_knows(tmp_path):
    kept = KeptManifests(tmp_path / "manifests")
    other = manifest("other", bytes(32), view_name="theirs")
    kept.keep(other, other.to_json().encode())
    with open_channel("127.0.0.1:1", None) as nowhere:
        client = FeatureClient(nowhere, None, tmp_path)
        names = [each.name for each in client.cached_views(manifest("ads", bytes(32)))]
    assert names == ["theirs", "v"]
