"""Contracts of the registry as they are served to devices: read once, kept in memory."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Engine

from feature_catalog.contract_lookup import find_contract, newest_contract
from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
from feature_catalog.definitions.contracts import Contract, thaw
from feature_catalog.definitions.plain import canonical_json, to_plain
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.definitions.views import FeatureView
from feature_catalog.definitions.whole_views import with_whole_views
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.on_device.served_views import chain_at
from feature_catalog.online import OnlineView
from feature_catalog.service.errors import OutdatedManifest

_MOST_CONTRACTS = 200
_VERSION_BYTES = 4
NEWEST_FOR_S = 10.0
"""How long the newest contract of a service is taken for that without looking again."""


@dataclass(frozen=True)
class ServedContract:
    """A contract, with all that is needed to serve it.

    Attributes:
        definitions: Those it was frozen from, their views whole as far as the registry has them.
    """

    contract: Contract
    definitions: DefinitionSet

    @property
    def service(self) -> str:
        """Name of the feature service."""
        return self.contract.service

    @cached_property
    def sha256(self) -> bytes:
        """Digest of the contract, 32 bytes."""
        return bytes.fromhex(self.contract.sha256)

    @cached_property
    def features(self) -> tuple[ServedFeature, ...]:
        """By name."""
        service = self.definitions.service(self.service)
        if service is None:
            raise LookupError(f"the contract of {self.service} lacks the service")
        return served_features(self.definitions, service)

    @cached_property
    def views(self) -> Mapping[str, FeatureView]:
        """Views it has features of."""
        return {each.view.name: each.view for each in self.features}

    def online_view(self, name: str) -> OnlineView:
        """A cloud view as the online tables hold it."""
        return self._online_views[name]

    @cached_property
    def _online_views(self) -> Mapping[str, OnlineView]:
        return {
            name: OnlineView.of(self.definitions, name)
            for name, view in self.views.items()
            if not view.is_on_device
        }

    @cached_property
    def device_assets(self) -> frozenset[bytes]:
        """Digests of files that a device of this service may need, fallbacks among them."""
        waiting = [
            name
            for each in self.features
            for name in chain_at(each, RunAt.DEVICE_INGEST, RunAt.DEVICE_READ).asset_names
        ]
        found: dict[str, bytes] = {}
        while waiting:
            name = waiting.pop()
            asset = self.definitions.asset(name)
            if asset is not None and name not in found:
                found[name] = bytes.fromhex(asset.sha256)
                waiting.extend([] if asset.fallback is None else [asset.fallback])
        return frozenset(found.values())

    def view_version(self, name: str) -> int:
        """A number that is another one when a view's values mean something else.

        Not the number of the view's definition: a new description would empty every device's cache,
        and two contracts of one view would empty each other's.
        """
        view = self.views[name]
        entities = [self.definitions.entity(each) for each in view.entities]
        layout = {
            "source": to_plain(view.source),
            "schema": [[each.name, each.dtype, list(each.shape)] for each in view.schema],
            "keys": [[list(each.join_keys), each.dtype] for each in entities if each is not None],
        }
        digest = hashlib.sha256(canonical_json(layout).encode()).digest()
        return int.from_bytes(digest[:_VERSION_BYTES], "big") % (2**31 - 1) + 1


class ServedContracts:
    """Finds contracts. Safe for several threads."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Assemble.

        Args:
            engine: Of the catalog.
            clock: Seconds, rising.
        """
        self._engine = engine
        self._registry = FeatureRegistry(engine)
        self._clock = clock
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, bytes], ServedContract] = OrderedDict()
        self._newest: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def newest(self, service: str) -> bytes:
        """Digest of a service's newest contract, at most `NEWEST_FOR_S` old.

        Raises:
            OutdatedManifest: If there is no such service (any more).
        """
        now_s = self._clock()
        with self._lock:
            kept = self._newest.get(service)
        if kept is not None and now_s - kept[0] < NEWEST_FOR_S:
            return kept[1]
        digest = newest_contract(self._engine, service)
        if digest is None:
            raise OutdatedManifest(
                f"there is no feature service {service} (any more); apply it with `flint catalog "
                "apply`, or take it out of what devices may read"
            )
        with self._lock:
            self._newest[service] = (now_s, digest)
            if len(self._newest) > _MOST_CONTRACTS:
                self._newest.popitem(last=False)
        return digest

    def find(self, service: str, sha256: bytes) -> ServedContract:
        """A contract that a service has, or once had.

        Raises:
            OutdatedManifest: If it never had that.
            DefinitionError: If a newer FLINT wrote what this one does not know.
        """
        key = (service, sha256)
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found
        found = self._read(service, sha256)
        with self._lock:
            self._found[key] = found
            if len(self._found) > _MOST_CONTRACTS:
                self._found.popitem(last=False)
        return found

    def _read(self, service: str, sha256: bytes) -> ServedContract:
        contract = find_contract(self._engine, service, sha256)
        if contract is None:
            raise OutdatedManifest(
                f"the feature service {service} never had the contract {sha256.hex()[:16]}; fetch "
                "the manifest again"
            )
        frozen = thaw(contract)
        return ServedContract(contract, with_whole_views(frozen, list(self._views(frozen))))

    def _views(self, frozen: DefinitionSet) -> Iterator[FeatureView]:
        """Every version of the contract's views, the newest first."""
        for name in frozen.names(FeatureView.kind):
            for version in reversed(self._registry.history(DefinitionKey(FeatureView.kind, name))):
                if isinstance(version.definition, FeatureView):
                    yield version.definition
