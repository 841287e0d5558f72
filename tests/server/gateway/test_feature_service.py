"""The feature service of a real gateway over TLS: manifests, features and assets."""

import dataclasses
import datetime as dt
import hashlib
import json
import os
import time
import urllib.request
import zlib

import grpc
import numpy as np
import pytest

from device_runtime.columns import Column
from device_runtime.feature_cache import FeatureCache
from device_runtime.feature_client import DamagedAsset, FeatureClient
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_manifest import FORMAT, Place
from device_runtime.feature_policies import Network
from device_runtime.feature_reader import FeatureReader, FetchFailed
from device_runtime.feature_values import decode_row, encode_key
from device_runtime.gateway_client import GatewayBusy, GatewayRefused, open_channel
from device_runtime.kept_manifests import KeptManifests
from device_runtime.manifest_views import cloud_views
from device_runtime.protocol import device_pb2
from device_runtime.protocol import features_pb2 as pb
from feature_catalog.blobs import BlobStore
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.on_device import DeviceRules
from feature_catalog.online.materialization import Sources, materialize
from server.gateway.gateway import Gateway
from server.gateway.rate_limits import DeviceRates, Rate
from tests.server.gateway import feature_examples as examples
from tests.server.gateway.conftest import open_new_job
from tests.server.gateway.feature_device import FeatureDevice
from tests.server.gateway.feature_examples import COUNTRIES, ROWS, TOKENS, user_id
from tests.server.update_examples import make_job

pytestmark = pytest.mark.integration

KEYS_PER_DAY = 3_000
METERED_ASSET_BYTES = 40


@pytest.fixture(scope="module")
def catalog(deployment, tmp_path_factory):
    """Definitions applied, sources materialised, assets in the blob store; their contracts."""
    folder = tmp_path_factory.mktemp("sources")
    examples.write_sources(folder)
    given = examples.definitions()
    registry = FeatureRegistry(deployment.engine)
    registry.apply(given)
    long_ago = examples.NOW - dt.timedelta(days=30)  # so that rows past their ttl are there too
    materialize(deployment.engine, given, start=long_ago, sources=Sources(folder))
    blobs = BlobStore(deployment.settings.blob_url)
    for file in (COUNTRIES, examples.CATEGORIES, TOKENS, ROWS):
        blobs.put(file.to_bytes())
    return {name: bytes.fromhex(sha) for name, sha in registry.state().contracts.items()}


@pytest.fixture(scope="module")
def gateway(deployment, catalog):
    """One that lets devices read two of the three services."""
    settings = dataclasses.replace(
        deployment.settings,
        device_feature_services=("ads_a", "ads_b", "ads_c"),
        max_feature_keys_per_day=KEYS_PER_DAY,
        device_rules={"metered_asset_bytes": METERED_ASSET_BYTES},
    )
    rates = DeviceRates(feature_calls=Rate(1.0, 60), fetches=Rate(1.0, 30))
    gateway = Gateway(settings, rates=rates)
    yield gateway
    gateway.close()


@pytest.fixture
def device(deployment, gateway, tmp_path):
    device = FeatureDevice(deployment.settings, deployment.enrolment_token, tmp_path / "device")
    yield device
    device.close()


def refusal_of(call) -> tuple[grpc.StatusCode, str]:
    try:
        result = call()
        if hasattr(result, "__iter__"):
            list(result)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")


# -- manifests ---------------------------------------------------------------------------------


def test_a_manifest_says_what_the_device_needs_and_nothing_of_where_values_come_from(
    device, catalog
):
    manifest = device.client.manifest("ads_a")
    assert manifest.contract_sha256 == catalog["ads_a"]
    assert [feature.name for feature in manifest.features] == sorted(
        ["category", "clicks", "country", "dwell_s", "placement", "score", "vector"]
    )
    assert not manifest.refused_features
    views = manifest.views
    assert [key.name for key in views["ad_stats"].join_keys] == ["ad_id", "user_id"]
    assert views["user_stats"].cache.max_age_s == 86_400
    assert views["user_stats"].audience == {"com.example.search"}
    assert views["ad_views"].place is Place.DEVICE
    assert [each.name for each in views["ad_views"].event_fields] == [
        "dwell_s",
        "extra",
        "placement",
    ]
    by_name = {feature.name: feature for feature in manifest.features}
    assert by_name["score"].column == "score"
    assert by_name["country"].column.startswith("country.")
    assert by_name["country"].default == 0  # "FR", as the cloud's vocabulary gives it
    assert by_name["vector"].default == [0.25, 0.25, 0.25]
    assert by_name["dwell_s"].column.startswith("dwell_s.")
    assert set(manifest.assets) == {"categories", "tokens", "rows"}
    text = manifest.to_json()
    for secret in (".parquet", "growth", "event_ts", "secret", "countries", "ads_b"):
        assert secret not in text


def test_a_manifest_that_the_device_has_is_not_sent_again(device):
    first = device.client.manifest("ads_a")
    again = device.new_client().manifest("ads_a")
    assert again == first
    asked = device.tampering.requests[-1]
    assert asked.known_manifest_sha256 == first.sha256()
    response = device.stub.GetManifest(device.signed(asked))
    assert response.manifest_json == b""
    assert response.manifest_sha256 == first.sha256()


def test_without_the_gateway_the_last_good_manifest_is_used(device):
    manifest = device.client.manifest("ads_b")
    with open_channel("127.0.0.1:1", None) as nowhere:
        offline = FeatureClient(nowhere, device.signer, device.folder)
        assert offline.manifest("ads_b") == manifest
        assert offline.manifest("ads_b", manifest.contract_sha256) == manifest
        with pytest.raises(GatewayBusy):
            offline.manifest("ads_b", bytes(32))
        with pytest.raises(GatewayBusy):
            offline.manifest("ads_a")
        with pytest.raises(FetchFailed):
            offline.fetch(manifest)("user_stats", 1, [encode_key([user_id(1)])])
    [kept] = (device.folder / "manifests").iterdir()
    kept.write_bytes(kept.read_bytes()[:-10])  # torn: no manifest is better than half of one
    assert KeptManifests(device.folder / "manifests").find("ads_b", b"") is None


def test_the_contract_of_a_task_is_what_the_manifest_is_of_or_it_is_refused(device, catalog):
    assert device.client.manifest("ads_a", catalog["ads_a"]).contract_sha256 == catalog["ads_a"]
    with pytest.raises(GatewayRefused, match="FLN-2942"):
        device.client.manifest("ads_a", catalog["ads_b"])


@pytest.mark.parametrize("name", ["secret", "no_such_service"])
def test_a_service_that_devices_may_not_read_is_refused_whether_there_is_one_or_not(device, name):
    with pytest.raises(GatewayRefused) as caught:
        device.client.manifest(name)
    assert caught.value.status == "PERMISSION_DENIED"
    assert caught.value.detail == (
        "devices may not read this feature service here; open a job that names it, or list it "
        "with --device-feature-service [FLN-2941]"
    )


def test_a_device_that_says_it_has_little_room_takes_fallbacks_or_is_told_why_not(
    device, deployment
):
    request = pb.GetManifestRequest(
        service="ads_a",
        manifest_format=FORMAT,
        storage=pb.DeviceStorage(free_bytes=60 * 2**20, memory_bytes=2 * 10**9, locale="pt-BR"),
    )
    response = device.stub.GetManifest(device.signed(request))
    manifest = json.loads(response.manifest_json)
    told = {each["name"]: each for each in manifest["refusals"]}
    uses = {each["name"]: each["uses"] for each in manifest["assets"]}
    assert uses["tokens"] == "categories"
    assert "bytes" in told["tokens"]["reason"]


def test_manifests_go_by_the_rules_that_the_deployment_was_started_with(device):
    assets = device.client.manifest("ads_a").assets.values()
    larger = {asset.name: asset.size_bytes > METERED_ASSET_BYTES for asset in assets}
    assert {asset.name: asset.network is Network.UNMETERED for asset in assets} == larger
    assert any(asset.size_bytes < DeviceRules().metered_asset_bytes for asset in assets)


def test_the_service_of_an_open_job_may_be_read_under_its_contract_and_no_longer(
    device, shared_coordinator, deployment, catalog
):
    for name in ("secret", "no_such_service"):
        with pytest.raises(GatewayRefused, match="FLN-2941"):
            device.client.manifest(name)
    job = make_job(feature_service=f"secret@{catalog['secret'].hex()}")
    open_new_job(shared_coordinator, deployment, job)
    manifest = device.client.manifest("secret", catalog["secret"])
    rows = device.client.fetch(manifest)(
        "user_stats", manifest.views["user_stats"].version, [encode_key([user_id(3)])]
    )
    assert [row.values for row in rows.values()] == [{"clicks": 3}]
    open_new_job(shared_coordinator, deployment)
    with pytest.raises(FetchFailed, match="FLN-2941"):
        device.client.fetch(manifest)(
            "user_stats", manifest.views["user_stats"].version, [encode_key([user_id(3)])]
        )
    with pytest.raises(GatewayRefused, match="FLN-2941"):  # what was kept is not gone by then
        device.client.manifest("secret", catalog["secret"])


def test_an_asset_whose_file_nobody_added_is_told_in_the_manifest_and_not_found(device):
    manifest = device.client.manifest("ads_c")
    assert manifest.refused_features == {"category"}
    [refusal] = [each for each in manifest.refusals if each.kind == "asset"]
    assert refusal.reason == "lost has no file on the server"
    request = pb.FetchAssetRequest(
        service="ads_c",
        contract_sha256=manifest.contract_sha256,
        asset_sha256=hashlib.sha256(examples.LOST.to_bytes()).digest(),
    )
    status, detail = refusal_of(lambda: device.stub.FetchAsset(device.signed(request)))
    assert status == grpc.StatusCode.NOT_FOUND
    assert "FLN-1236" in detail


# -- features ----------------------------------------------------------------------------------


def test_rows_are_what_the_sources_say_after_the_clouds_transforms(device):
    manifest = device.client.manifest("ads_a")
    column = {feature.name: feature.column for feature in manifest.features}
    keys = [encode_key([user_id(n)]) for n in (1, 2, 3, 4, 5, 9_999)]
    rows = device.client.fetch(manifest)("user_stats", manifest.views["user_stats"].version, keys)
    for number in (1, 2, 3, 4):
        values = rows[keys[number - 1]].values
        word = examples.country(number)
        expected = 4 if word is None else COUNTRIES.ids.get(word, 3)
        assert values[column["country"]] == expected
        assert values["clicks"] == number
        assert values["score"] == float(np.float32(number / 3))
        assert values["vector"] == [number, number + 1, number + 2]
    # Of a key that is not known, and of a row that is not true any more: what missing becomes.
    for key in keys[4:]:
        assert rows[key].values == {column["country"]: 4}
        assert rows[key].age_s == 0


def test_statuses_and_ages_are_told(device):
    manifest = device.client.manifest("ads_b")
    request = pb.GetFeaturesRequest(
        service="ads_b",
        contract_sha256=manifest.contract_sha256,
        view="user_stats",
        view_version=manifest.views["user_stats"].version,
        keys=[encode_key([user]) for user in (user_id(1), user_id(5), "nobody")],
    )
    rows = device.stub.GetFeatures(device.signed(request)).rows
    Status = pb.FeatureRow  # noqa: N806 - its members are its statuses
    assert [row.status for row in rows] == [
        Status.PRESENT,
        Status.OUTSIDE_MAX_AGE,
        Status.NOT_FOUND,
    ]
    age_s = time.time() - examples.event_ts(1).timestamp()
    assert rows[0].age_s == pytest.approx(age_s, abs=60)
    assert decode_row(rows[0].values) == {"country": "FR", "score": float(np.float32(1 / 3))}
    assert (rows[1].values, rows[2].values) == (b"", b"")


def test_two_services_over_one_view_and_file_never_mix_values(device, tmp_path):
    """One hashes countries in the cloud, the other wants them as they are."""
    database = FeatureDatabase(tmp_path / "features.sqlite")
    key = encode_key([user_id(2)])
    readers = {}
    for name in ("ads_a", "ads_b"):
        manifest = device.client.manifest(name)
        views = cloud_views(manifest)
        cache = FeatureCache(database, "com.example.feed", [view.cached() for view in views])
        readers[name] = FeatureReader(cache, views, device.client.fetch(manifest))
    for expected in ("fetched", "cached"):
        a = readers["ads_a"].read("user_stats", [key], unmetered=True)
        b = readers["ads_b"].read("user_stats", [key], unmetered=True)
        assert (a.statuses, b.statuses) == ((expected,), (expected,))
        assert a.columns["country"].to_list() == [COUNTRIES.ids["IT"]]
        assert b.columns["country"].to_list() == ["IT"]
        assert a.columns["clicks"].to_list() == [1]  # bucketized on the device
        assert a.columns["vector"].to_list() == [[2.0, 3.0, 4.0]]
    database.close()


def test_a_view_of_another_version_a_devices_own_view_or_none_is_refused(device):
    manifest = device.client.manifest("ads_a")
    fetch = device.client.fetch(manifest)
    key = encode_key([user_id(1)])
    with pytest.raises(FetchFailed, match="FLN-2942"):
        fetch("user_stats", manifest.views["user_stats"].version + 1, [key])
    with pytest.raises(FetchFailed, match="FLN-2944"):
        fetch("ad_views", manifest.views["ad_views"].version, [key])


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [encode_key([user_id(n)]) for n in range(257)],
        [b""],
        [b"\xff" * 40],
        [encode_key([7])],
        [encode_key(["u1", "u2"])],
        [encode_key(["u" * 2_000])],
        [b"\xc0\x60"],  # a tag
        [b"\x81\x7f\x61u\xff"],  # text of indefinite length
        [b"\x98\x01\x62u1"],  # not the shortest form: no key is written so
    ],
)
def test_keys_that_are_none_of_the_view_are_refused(device, keys):
    manifest = device.client.manifest("ads_b")
    request = pb.GetFeaturesRequest(
        service="ads_b",
        contract_sha256=manifest.contract_sha256,
        view="user_stats",
        view_version=manifest.views["user_stats"].version,
        keys=keys,
    )
    status, detail = refusal_of(lambda: device.stub.GetFeatures(device.signed(request)))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert "FLN-2944" in detail


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "../../etc/passwd", "ads_a'; DROP TABLE devices;--", "ads\0a", "ädß"]
)
def test_hostile_names_are_refused_before_anything_is_looked_up(device, name):
    request = pb.GetManifestRequest(service=name, manifest_format=FORMAT)
    status, detail = refusal_of(lambda: device.stub.GetManifest(device.signed(request)))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert "FLN-2944" in detail
    assert name not in detail or not name


def test_a_request_too_large_for_one_message_is_refused_by_the_transport(device):
    request = pb.GetFeaturesRequest(service="ads_a", keys=[b"k" * 2**20] * 20)
    status, _ = refusal_of(lambda: device.stub.GetFeatures(device.signed(request)))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED


# -- assets ------------------------------------------------------------------------------------


def test_assets_come_compressed_where_that_helps_and_are_what_the_manifest_names(device):
    manifest = device.client.manifest("ads_a")
    seen = []
    device.tampering.change = lambda _, chunk: seen.append(chunk) or chunk
    assets = device.client.assets(manifest)
    assert assets["tokens"].tokens == TOKENS.tokens
    np.testing.assert_array_equal(assets["rows"].table, ROWS.table)
    sent = {True: 0, False: 0}
    for chunk in seen:
        sent[chunk.compression == "zlib"] += len(chunk.data)
    assert 0 < sent[True] < 0.75 * len(TOKENS.to_bytes())
    assert sent[False] == len(examples.CATEGORIES.to_bytes())  # too small to be worth it
    count = len(device.tampering.requests)
    assert set(device.new_client().assets(manifest)) == set(assets)
    assert len(device.tampering.requests) == count  # what is here is not asked for again


def test_a_download_that_is_cut_goes_on_where_it_was_also_in_a_new_process(device):
    manifest = device.client.manifest("ads_a")
    total = len(TOKENS.to_bytes())
    assert total > 2 * 2**20
    device.tampering.change = lambda number, chunk: chunk if number < 1 else None
    with pytest.raises(GatewayBusy):
        only(device.client, manifest, "tokens")
    # What a killed process leaves: its partial file, under its own number.
    [partial] = (device.folder / "assets").glob("*.partial")
    partial.rename(partial.with_name(partial.name.replace(f".{os.getpid()}.", ".4194304.")))
    device.tampering.change = lambda _, chunk: chunk
    assets = only(device.new_client(), manifest, "tokens")
    assert assets["tokens"].tokens == TOKENS.tokens
    offsets = [r.offset for r in device.tampering.requests if isinstance(r, pb.FetchAssetRequest)]
    assert offsets == [0, 2**20]


def only(client, manifest, name):
    assets = {name: manifest.assets[name]}
    return client.assets(dataclasses.replace(manifest, assets=assets))


def flipped(number, chunk):
    changed = pb.AssetChunk()
    changed.CopyFrom(chunk)
    data = bytearray(chunk.data)
    data[len(data) // 2] ^= 1
    changed.data = bytes(data)
    return changed


@pytest.mark.parametrize("name", ["rows", "tokens"])
def test_a_byte_that_flips_on_the_way_costs_the_download_and_nothing_else(device, name):
    manifest = device.client.manifest("ads_a")
    device.tampering.change = flipped
    with pytest.raises(DamagedAsset, match=f"asset {name} .* damaged"):
        only(device.client, manifest, name)
    assert list((device.folder / "assets").iterdir()) == []
    device.tampering.change = lambda _, chunk: chunk
    assert set(only(device.client, manifest, name)) == {name}


def bomb(number, chunk):
    packed = zlib.compress(bytes(32 * 2**20), 1)
    return pb.AssetChunk(
        data=packed, size_bytes=2**20, total_bytes=chunk.total_bytes, compression="zlib"
    )


@pytest.mark.parametrize(
    "change",
    [
        bomb,
        lambda _, c: pb.AssetChunk(data=c.data, size_bytes=2**31, total_bytes=c.total_bytes),
        lambda _, c: pb.AssetChunk(data=b"xx", size_bytes=2, total_bytes=2**40),
        lambda _, c: pb.AssetChunk(
            data=b"xx", size_bytes=2, total_bytes=c.total_bytes, compression="brotli"
        ),
    ],
)
def test_chunks_that_are_not_what_they_say_are_thrown_away_unread(device, change):
    manifest = device.client.manifest("ads_a")
    device.tampering.change = change
    with pytest.raises(DamagedAsset):
        only(device.client, manifest, "tokens")
    assert list((device.folder / "assets").iterdir()) == []


def test_an_asset_of_another_service_and_an_offset_past_the_end_are_refused(device):
    manifest = device.client.manifest("ads_a")
    only_cloud = hashlib.sha256(COUNTRIES.to_bytes()).digest()  # what the cloud alone reads
    rows = manifest.assets["rows"]
    for digest, offset, status, code in (
        (only_cloud, 0, grpc.StatusCode.PERMISSION_DENIED, "FLN-2946"),
        (rows.sha256, rows.size_bytes + 1, grpc.StatusCode.INVALID_ARGUMENT, "FLN-2944"),
    ):
        request = pb.FetchAssetRequest(
            service="ads_a",
            contract_sha256=manifest.contract_sha256,
            asset_sha256=digest,
            offset=offset,
        )
        found, detail = refusal_of(lambda r=request: device.stub.FetchAsset(device.signed(r)))
        assert found == status
        assert code in detail


# -- who asks, and how often -------------------------------------------------------------------


def test_nobody_is_served_without_a_proof_of_an_enrolled_key(device):
    manifest = device.client.manifest("ads_b")
    requests = (
        (device.stub.GetManifest, pb.GetManifestRequest(service="ads_b", manifest_format=FORMAT)),
        (
            device.stub.GetFeatures,
            pb.GetFeaturesRequest(
                service="ads_b",
                contract_sha256=manifest.contract_sha256,
                view="user_stats",
                view_version=1,
                keys=[encode_key([user_id(1)])],
            ),
        ),
        (
            device.stub.FetchAsset,
            pb.FetchAssetRequest(
                service="ads_a", contract_sha256=bytes(32), asset_sha256=bytes(32)
            ),
        ),
    )
    for call, request in requests:
        assert refusal_of(lambda c=call, r=request: c(r))[0] == grpc.StatusCode.UNAUTHENTICATED
        signed = device.signed(request)
        signed.service = "secret"  # signed for another
        assert refusal_of(lambda c=call, r=signed: c(r))[0] == grpc.StatusCode.UNAUTHENTICATED
    # A proof for one call is none for another.
    manifest_request = device.signed(pb.GetManifestRequest(service="ads_b", manifest_format=FORMAT))
    other = pb.GetFeaturesRequest(
        proof=device_pb2.DeviceProof.FromString(manifest_request.proof.SerializeToString()),
        service="ads_b",
        contract_sha256=manifest.contract_sha256,
        view="user_stats",
        keys=[encode_key([user_id(1)])],
    )
    assert refusal_of(lambda: device.stub.GetFeatures(other))[0] == grpc.StatusCode.UNAUTHENTICATED


def test_a_device_whose_clock_is_wrong_is_told_the_time_and_served(device):
    device.signer.heard_time(int(time.time() * 1000) - 3_600_000)
    assert device.client.manifest("ads_b").service == "ads_b"


def test_one_devices_keys_of_a_day_are_bounded_and_others_are_not_touched(
    device, deployment, tmp_path
):
    manifest = device.client.manifest("ads_b")
    fetch, version = device.client.fetch(manifest), manifest.views["user_stats"].version
    keys = [encode_key([user_id(n)]) for n in range(250)]
    for _ in range(KEYS_PER_DAY // 250):
        fetch("user_stats", version, keys)
    with pytest.raises(FetchFailed, match="FLN-2945"):
        fetch("user_stats", version, keys)
    other = FeatureDevice(deployment.settings, deployment.enrolment_token, tmp_path / "other")
    assert len(other.client.fetch(manifest)("user_stats", version, keys)) > 150
    other.close()


def test_a_device_that_asks_too_often_is_told_to_come_back(device):
    for _ in range(60):
        last = device.signed(pb.GetManifestRequest(service="ads_b", manifest_format=FORMAT))
        device.stub.GetManifest(last)
    status, detail = refusal_of(lambda: [device.stub.GetManifest(last) for _ in range(20)])
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "FLN-2948" in detail


def test_calls_are_counted(device, deployment):
    device.client.manifest("ads_b")
    port = deployment.settings.gateway_metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    for line in (
        'flint_gateway_feature_calls_total{call="manifest",result="answered"}',
        'flint_gateway_feature_calls_total{call="features",result="refused"}',
        'flint_gateway_unauthenticated_total{call="asset"}',
        'flint_gateway_held_back_total{code="FLN-2945",reason="feature_keys_of_a_day"}',
        "flint_gateway_feature_keys_total",
    ):
        [found] = [each for each in text.splitlines() if each.startswith(f"{line} ")]
        assert float(found.rpartition(" ")[2]) > 0, line


def test_the_columns_that_devices_get_are_the_clouds_own_transforms(device):
    """The oracle applies the service's chain to the source itself."""
    manifest = device.client.manifest("ads_a")
    feature = next(each for each in manifest.features if each.name == "clicks")
    numbers = list(range(1, 300, 7))
    keys = [encode_key([user_id(n)]) for n in numbers]
    rows = device.client.fetch(manifest)("user_stats", manifest.views["user_stats"].version, keys)
    got = [rows[key].values.get("clicks") for key in keys]
    expected = [n if n % 5 else None for n in numbers]
    assert got == expected
    read = feature.read.apply(Column.of(got, kind=feature.kind)).to_list()
    oracle = [
        None if n % 5 == 0 else int(np.searchsorted([2, 5, 100], n, "right")) for n in numbers
    ]
    assert read == oracle


def test_a_device_of_two_services_keeps_the_cached_rows_of_both(device, tmp_path):
    database = FeatureDatabase(tmp_path / "features.sqlite")
    pair = encode_key([3, user_id(1)])

    def reader(name):  # as each task opens the cache anew
        manifest = device.client.manifest(name)
        views = device.client.cached_views(manifest)
        cache = FeatureCache(database, "com.example.feed", views)
        return FeatureReader(
            cache,
            cloud_views(manifest),
            device.client.fetch(manifest),
            device.client.assets(manifest),
        )

    assert reader("ads_a").prefetch("ad_stats", [pair], unmetered=True)[0] == 1
    assert reader("ads_b").prefetch("user_stats", [encode_key([user_id(1)])], unmetered=True)[0]
    kept = reader("ads_a").read("ad_stats", [pair], unmetered=None)
    assert kept.statuses == ("cached",)
    assert kept.columns["category"].to_list() == [1]  # "news", by the vocabulary
    database.close()
