"""Tasks under a feature contract: what one device needs to join their examples.

The contract is the task's. A device whose feature manifest is of another fetches it anew; where the
gateway has none of that contract for it, or leaves features out that this device cannot make, the
task is declined with a reason.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast, get_args

from device_runtime.feature_cache import FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_inputs import InputForm, Reads
from device_runtime.feature_manifest import FeatureManifest
from device_runtime.feature_reader import FeatureReader, Fetch, FetchedRow
from device_runtime.feature_values import encode_row
from device_runtime.gateway_client import GatewayRefused
from device_runtime.joined_examples import FeatureSources, JoinedExamples
from device_runtime.labelled_events import LabelledEvents, stream_of
from device_runtime.manifest_views import cloud_views
from device_runtime.protocol import device_pb2 as pb
from device_runtime.task_fault import TaskDeclined
from device_runtime.transform_assets import Assets
from device_runtime.user_activity import UserActivity, replay

MAX_PLACES = 1_000_000
"""Entries of one record, at most."""
FEATURES_FILE = "features.sqlite"
"""Name of the feature file in a device's folder."""
ACTIVITY_FILE = "activity.json"
"""Name of what a user did there, on a device that stands in for a phone."""


class FeatureCloud(Protocol):
    """What a device fetches of the feature catalog; `FeatureClient` is one."""

    def manifest(self, service: str, contract_sha256: bytes) -> FeatureManifest:
        """The manifest of a service under a contract, from the gateway or as last kept."""
        ...

    def assets(self, manifest: FeatureManifest, *, unmetered: bool | None) -> Assets:
        """Every asset the manifest names, checked against its digest."""
        ...

    def fetch(self, manifest: FeatureManifest) -> Fetch:
        """What fetches rows for `FeatureReader`."""
        ...


class FeatureTasks:
    """The features of one device, for the tasks that want them.

    Attributes:
        bytes_down: Of rows fetched so far, with their keys.
    """

    def __init__(
        self,
        folder: Path,
        cloud: FeatureCloud,
        app_id: str,
        unmetered: Callable[[], bool | None],
    ) -> None:
        """Open nothing yet: most devices have no such task.

        Args:
            folder: The device's.
            cloud: What it fetches from.
            app_id: Host app; whose entries of the cache it reads and writes.
            unmetered: Whether the network is, at this moment; None: there is none.
        """
        self.bytes_down = 0
        self._folder = folder
        self._cloud = cloud
        self._app_id = app_id
        self._unmetered = unmetered
        self._database: FeatureDatabase | None = None
        self._waiting: int | None = None

    def count(self) -> int:
        """Labelled events on this device, of all services."""
        stored = 0
        if self._file.exists():
            with self._opened().reading() as connection:
                query = "SELECT count(*) FROM records WHERE stream GLOB ?"
                stored = int(connection.execute(query, (stream_of("*"),)).fetchone()[0])
        if self._waiting is None:
            activity = self._activity
            self._waiting = len(UserActivity.read(activity).events) if activity.exists() else 0
        return stored + self._waiting

    def examples(self, asked: pb.TaskFeatures, label_shape: tuple[int, ...]) -> JoinedExamples:
        """What a task trains on.

        Args:
            asked: Of the task.
            label_shape: Of a record's label.

        Raises:
            TaskDeclined: If this device cannot have the features the task is for.
            UnsuitableFeatures: If the model cannot read them.
            GatewayBusy: Call again later.
            GatewayRefused: It will not be given what it needs.
        """
        with _refusals_decline():
            manifest = self._cloud.manifest(asked.service, asked.contract_sha256)
        if manifest.contract_sha256 != asked.contract_sha256:
            raise TaskDeclined(
                "feature_contract",
                f"the task is for contract {asked.contract_sha256.hex()[:16]} of {asked.service}, "
                f"and the manifest there is for this device is of "
                f"{manifest.contract_sha256.hex()[:16]}",
            )
        if manifest.refused_features:
            reasons = "; ".join(r.reason for r in manifest.refusals if r.features)
            raise TaskDeclined("features_refused", reasons[:500])
        with _refusals_decline():
            assets = self._cloud.assets(manifest, unmetered=self._unmetered())
        database = self._opened()
        events = LabelledEvents(database, manifest, assets)
        if self._activity.exists():
            replay(self._activity, events)
            self._waiting = None
        views = cloud_views(manifest)
        cache = FeatureCache(database, self._app_id, [view.cached() for view in views])
        reader = FeatureReader(cache, views, self._counting(self._cloud.fetch(manifest)), assets)
        form = input_form_of(asked)
        sources = FeatureSources(manifest, events, reader, assets, self._unmetered)
        return JoinedExamples(sources, form, label_shape)

    def _counting(self, fetch: Fetch) -> Fetch:
        def rows(view: str, version: int, keys: Sequence[bytes]) -> Mapping[bytes, FetchedRow]:
            found = fetch(view, version, keys)
            sizes = (len(key) + len(encode_row(row.values)) for key, row in found.items())
            self.bytes_down += sum(sizes)
            return found

        return rows

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _file(self) -> Path:
        return self._folder / FEATURES_FILE

    @property
    def _activity(self) -> Path:
        return self._folder / ACTIVITY_FILE

    def _opened(self) -> FeatureDatabase:
        if self._database is None:
            self._database = FeatureDatabase(self._file)
        return self._database


@contextmanager
def _refusals_decline() -> Iterator[None]:
    """What the gateway does not give this device, the device cannot train on.

    One that was not authentic says nothing of that: the runner mends its clock and asks again.
    """
    try:
        yield
    except GatewayRefused as error:
        if error.status == "UNAUTHENTICATED":
            raise
        raise TaskDeclined("features_refused", error.detail[:500]) from error


def input_form_of(asked: pb.TaskFeatures) -> InputForm:
    """What a task's model reads of features.

    Raises:
        TaskDeclined: If this runtime does not know such a model.
    """
    if asked.reads not in get_args(Reads) or not 0 < asked.places <= MAX_PLACES:
        raise TaskDeclined(
            "features_unknown",
            f"the task's model reads {asked.places} {asked.reads[:20]!r}, which this runtime "
            "cannot make; update the app",
        )
    if asked.reads != "numbers" and asked.ids < 1:
        raise TaskDeclined("features_unknown", "the task's model looks ids up in an empty table")
    return InputForm(cast(Reads, asked.reads), asked.places, asked.ids, asked.hash_seed)
