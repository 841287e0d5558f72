"""How often one device, or one address, may call: token buckets in bounded memory."""

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from server.gateway.held_back import HeldBack, HeldBackReason

_MOST_KEYS = 100_000
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's size.

    Attributes:
        per_s: Calls a second for ever.
        burst: Calls at once after a pause.
    """

    per_s: float
    burst: int


FEATURE_KEYS_PER_DAY = 20_000


def keys_of_a_day(keys: int) -> Rate:
    """So many keys a day: a device may ask for them all at once, and more as the day goes by."""
    return Rate(keys / 86_400, keys)


@dataclass(frozen=True, slots=True)
class DeviceRates:
    """What one device may do. A device that keeps to what it is told never meets these.

    The soonest a gateway asks anybody back is 0.7 s; one task takes a check-in, a fetch of each of
    three blobs and an upload, and now and then one more of each.

    Attributes:
        enrolments: Of one address, at one gateway; many phones may share an address.
        feature_calls: Manifests, and rows of up to 256 keys.
        feature_keys: Keys that a device may ask values of, see `keys_of_a_day`.
    """

    check_ins: Rate = field(default=Rate(2.0, 60))
    uploads: Rate = field(default=Rate(2.0, 30))
    fetches: Rate = field(default=Rate(6.0, 120))
    enrolments: Rate = field(default=Rate(20.0, 2000))
    feature_calls: Rate = field(default=Rate(4.0, 120))
    feature_keys: Rate = field(default_factory=lambda: keys_of_a_day(FEATURE_KEYS_PER_DAY))


class TokenBuckets:
    """One bucket a key. The keys used least recently are forgotten, and begin full again.

    The generic cell rate algorithm (ITU-T I.371): a key is one number, the time at which its
    bucket is full again. Safe for several threads.
    """

    def __init__(self, rate: Rate, most_keys: int = _MOST_KEYS) -> None:
        self._interval_s = 1.0 / rate.per_s
        self._depth_s = (rate.burst - 1) / rate.per_s
        self._most_keys = most_keys
        self._lock = threading.Lock()
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, key: str, now_s: float, tokens: int = 1) -> float:
        """Take tokens; returns 0, or the seconds until they are there (then none was taken)."""
        with self._lock:
            full_at_s = max(self._full_at_s.pop(key, now_s), now_s)
            wait_s = full_at_s - now_s + (tokens - 1) * self._interval_s - self._depth_s
            if wait_s <= _ROUNDING_S:
                full_at_s += tokens * self._interval_s
                wait_s = 0.0
            self._full_at_s[key] = full_at_s
            if len(self._full_at_s) > self._most_keys:
                self._full_at_s.popitem(last=False)
        return max(0.0, wait_s)


class RateLimits:
    """The buckets of one gateway process."""

    def __init__(self, rates: DeviceRates) -> None:
        self._check_ins = TokenBuckets(rates.check_ins)
        self._uploads = TokenBuckets(rates.uploads)
        self._fetches = TokenBuckets(rates.fetches)
        self._enrolments = TokenBuckets(rates.enrolments)
        self._feature_calls = TokenBuckets(rates.feature_calls)
        self._feature_keys = TokenBuckets(rates.feature_keys)

    def check_in(self, device_id: str, now_s: float) -> HeldBack | None:
        """Of an authenticated device; so for upload and fetch."""
        wait_s = self._check_ins.take(device_id, now_s)
        return _held(HeldBackReason.CHECK_INS_TOO_FREQUENT, wait_s)

    def upload(self, device_id: str, now_s: float) -> HeldBack | None:
        """Of an update, whatever becomes of it."""
        wait_s = self._uploads.take(device_id, now_s)
        return _held(HeldBackReason.UPLOADS_TOO_FREQUENT, wait_s)

    def fetch(self, device_id: str, now_s: float) -> HeldBack | None:
        """Of a blob, or of the rest of one."""
        wait_s = self._fetches.take(device_id, now_s)
        return _held(HeldBackReason.FETCHES_TOO_FREQUENT, wait_s)

    def feature_call(self, device_id: str, now_s: float) -> HeldBack | None:
        """Of a manifest, or of rows."""
        wait_s = self._feature_calls.take(device_id, now_s)
        return _held(HeldBackReason.FEATURE_CALLS_TOO_FREQUENT, wait_s)

    def feature_keys(self, device_id: str, keys: int, now_s: float) -> HeldBack | None:
        """Of the keys that rows are asked of, whether they were asked of before or not."""
        wait_s = self._feature_keys.take(device_id, now_s, keys)
        return _held(HeldBackReason.FEATURE_KEYS_OF_A_DAY, wait_s)

    def enrol(self, peer: str, now_s: float) -> HeldBack | None:
        """From an address.

        Args:
            peer: As gRPC names it, e.g. ``"ipv4:192.0.2.7:50312"``. This machine's own addresses
                are not limited: behind a load balancer here everybody would share one.
            now_s: Server's clock.
        """
        address = address_of(peer)
        if address is None:
            return None
        wait_s = self._enrolments.take(address, now_s)
        return _held(HeldBackReason.ENROLMENTS_OF_ONE_ADDRESS, wait_s)


def address_of(peer: str) -> str | None:
    """What one sender's enrolments are counted under: its IPv4 address, or its IPv6 /64 network.

    None for this machine, and for what is no address.

    >>> address_of("ipv4:192.0.2.7:50312"), address_of("ipv4:127.0.0.1:1")
    ('192.0.2.7', None)
    >>> address_of("ipv6:%5B2001:db8::1%5D:50312")
    '2001:db8::/64'
    """
    _, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _held(reason: HeldBackReason, wait_s: float) -> HeldBack | None:
    return HeldBack(reason, wait_s) if wait_s > 0 else None
