"""What one device stores, caches, downloads and transforms of a feature service, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from device_runtime.columns import Kind
from device_runtime.feature_policies import CachePolicy, Network, Retention
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.assets import AssetType
from feature_catalog.on_device.profile import DeviceProfile, StorageClass
from feature_catalog.on_device.rules import Budget
from feature_catalog.on_device.sizes import FILE_BYTES, file_bytes


class Effect(StrEnum):
    """What a reason leads to.

    ``refused``: the device does without. ``replaced``: it takes a fallback. ``reduced``: it keeps
    less than the definitions allow. ``waits``: it gets it later, over another network.
    """

    REFUSED = "refused"
    REPLACED = "replaced"
    REDUCED = "reduced"
    WAITS = "waits"


class Reason(StrEnum):
    """Why a device does not get what the definitions say."""

    OS_TOO_OLD = "os_too_old"
    ASSET_TOO_LARGE = "asset_too_large"
    ASSET_UNREADABLE = "asset_unreadable"
    NOT_ON_SERVER = "not_on_server"
    OTHER_LOCALE = "other_locale"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_STORAGE = "out_of_storage"
    CACHE_FILE_FULL = "cache_file_full"
    METERED_NETWORK = "metered_network"
    NEEDS_REFUSED = "needs_refused"


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that is otherwise than the definitions say.

    Attributes:
        about: E.g. ``asset ad_categories``, ``feature_view clicks`` or ``feature age``.
        sentence: Why, with the numbers compared.
    """

    effect: Effect
    reason: Reason
    about: str
    sentence: str


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A value of an event as it is stored: a field, after one chain of ``device_ingest``.

    Attributes:
        kind: After the chain.
        shape: Of one value, after the chain.
    """

    field: str
    ingest: TransformChain
    kind: Kind
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """Events that a device keeps.

    Attributes:
        columns: What of an event is stored: what the service's features use.
        retention: How much of them, within what the device has room for.
        event_bytes: What one counts as, with every value there.
        max_events: Most that fit.
        counted_bytes: Most they count as together.
        is_bound: Whether they cannot be more; else an estimate from the length of texts.
    """

    view: str
    event: str
    columns: tuple[StoredColumn, ...]
    retention: Retention
    event_bytes: int
    max_events: int
    counted_bytes: int
    is_bound: bool

    @property
    def bytes(self) -> int:
        """Of the device's storage, at most."""
        return file_bytes(self.counted_bytes)


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """Values of a cloud view on a device.

    Attributes:
        policy: How they are kept, within what the device has room for.
        row_bytes: Of one key's row as it is fetched.
        key_bytes: What a key counts as, its row and its processed values together.
        max_keys: About so many fit.
        counted_bytes: Most they count as together; 0 where nothing is kept.
        is_bound: Whether ``row_bytes`` and ``key_bytes`` cannot be more.
    """

    view: str
    policy: CachePolicy
    row_bytes: int
    key_bytes: int
    max_keys: int
    counted_bytes: int
    is_bound: bool

    @property
    def bytes(self) -> int:
        """Of the device's storage, at most."""
        return file_bytes(self.counted_bytes)


@dataclass(frozen=True, slots=True)
class DownloadedAsset:
    """An asset that a device gets.

    Attributes:
        asked: Assets the definitions name that it stands for: itself, or what it is a fallback of.
        sha256: Of the file, hexadecimal.
        bytes: Of the file.
        memory_bytes: Once it is read.
        network: Over which network it is downloaded.
        used_by: Features.
    """

    name: str
    asked: tuple[str, ...]
    type: AssetType
    version: int
    sha256: str
    bytes: int
    memory_bytes: int
    network: Network
    used_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TransformedFeature:
    """A feature, and which chain runs where.

    Attributes:
        name: In the service.
        is_on_device: Whether its values are made on the device.
        cloud: What its values have gone through before a device gets them.
        device_ingest: What they go through when they are stored.
        device_read: What they go through each time they are read.
        assets: Asset taken, by the name that the chains say.
        gives: Kind of what comes out.
        shape: Of one value that comes out.
    """

    name: str
    view: str
    field: str
    is_on_device: bool
    cloud: TransformChain
    device_ingest: TransformChain
    device_read: TransformChain
    assets: Mapping[str, str]
    gives: Kind
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeviceResolution:
    """What one device does with a feature service.

    Attributes:
        budget: What it may spend.
        refused: Features that it cannot have.
        remarks: All that is otherwise than the definitions say.
    """

    service: str
    profile: DeviceProfile
    storage_class: StorageClass
    budget: Budget
    stored: tuple[StoredEvents, ...]
    cached: tuple[CachedFeatures, ...]
    downloaded: tuple[DownloadedAsset, ...]
    transformed: tuple[TransformedFeature, ...]
    refused: tuple[str, ...]
    remarks: tuple[Remark, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the device can have every feature, and so train and serve the model."""
        return not self.refused

    @property
    def stored_bytes(self) -> int:
        """Of all events, at most."""
        return sum(each.bytes for each in self.stored)

    @property
    def cached_bytes(self) -> int:
        """Of all cached values, at most."""
        return sum(each.bytes for each in self.cached)

    @property
    def downloaded_bytes(self) -> int:
        """Of all assets."""
        return sum(each.bytes for each in self.downloaded)

    @property
    def file_overhead_bytes(self) -> int:
        """Of the file that holds events and cached values, whatever is in it."""
        return FILE_BYTES if self.stored or any(each.bytes for each in self.cached) else 0

    @property
    def total_bytes(self) -> int:
        """Of the device's storage, at most."""
        kept = self.stored_bytes + self.cached_bytes + self.downloaded_bytes
        return kept + self.file_overhead_bytes

    @property
    def memory_bytes(self) -> int:
        """Of all assets, once they are read."""
        return sum(each.memory_bytes for each in self.downloaded)
