"""Compiled keys of devices' draws: SHA-256 (FIPS 180-4) of many clients' numbers at once.

What `server.coordination.selection` hashes for one device. The keys of several clients are made
together, in lanes of vectors: 30 ns each; alone, a key takes 250 ns, longer than all the rest of a
check-in.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulation.timeline.compilation import compiled
from simulation.timeline.shuffle_seeds import LANES, hash_lanes

PACE, SELECTION = 0, 1
"""What a device draws for."""

KEYS = LANES
"""Clients whose keys are made at once."""
SCRATCH_WORDS = (16 + 2) * KEYS
"""Room for their messages, then for what is found."""

_DIGESTS = 16 * KEYS
_PREFIXES = (b"pace\0", b"selection\0")
_PREFIX = np.zeros((2, 10), np.uint8)
for _purpose, _text in enumerate(_PREFIXES):
    _PREFIX[_purpose, : len(_text)] = np.frombuffer(_text, np.uint8)
_PREFIX_LENGTH = np.array([len(text) for text in _PREFIXES])


_Of = Any
"""Something of Numba's or LLVM's, which are not typed."""


def _array_address(_context: _Of, array: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """Where an array's first element is."""

    def generate(context: _Of, builder: _Of, signature: _Of, arguments: _Of) -> _Of:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(made.data, context.get_value_type(types.int64))

    return types.int64(array), generate


address_of: _Of = intrinsic(_array_address)


def _write_message(client: int, purpose: int, lane: int, words: NDArray[np.uint32]) -> int:
    """Write a lane's message over zeros: purpose, a zero and the client's number in decimal.

    Returns:
        Its length in bytes.
    """
    length = _PREFIX_LENGTH[purpose]
    for at in range(length):
        words[(at >> 2) * KEYS + lane] |= np.uint32(_PREFIX[purpose, at]) << bits_after(at)
    digits, rest = 1, client // 10
    while rest > 0:
        digits += 1
        rest //= 10
    rest = client
    for at in range(length + digits - 1, length - 1, -1):
        words[(at >> 2) * KEYS + lane] |= np.uint32(48 + rest % 10) << bits_after(at)
        rest //= 10
    length += digits
    words[(length >> 2) * KEYS + lane] |= np.uint32(0x80) << bits_after(length)
    words[15 * KEYS + lane] = np.uint32(8 * length)
    return int(length)


def _bits_after(at: int) -> np.uint32:
    """Of a word, those after a byte of the message."""
    return np.uint32(24 - 8 * (at & 3))


def _write_messages(first: int, count: int, purpose: int, words: NDArray[np.uint32]) -> None:
    """Write the lanes' messages; most differ from the one before in the last digit."""
    words[: 16 * KEYS] = 0
    length = 0
    for lane in range(count):
        if lane == 0 or (first + lane) % 10 == 0:
            length = write_message(first + lane, purpose, lane, words)
            continue
        for row in range((length >> 2) + 1):
            words[row * KEYS + lane] = words[row * KEYS + lane - 1]
        words[15 * KEYS + lane] = np.uint32(8 * length)
        last = length - 1
        words[(last >> 2) * KEYS + lane] += np.uint32(1) << bits_after(last)


def _make_keys(first: int, count: int, purpose: int, scratch: NDArray[np.uint32]) -> None:
    """Make the keys of ``count`` clients from ``first`` on, at most `KEYS`; see `made_key`.

    Args:
        scratch: Room, shape ``(SCRATCH_WORDS,)``.
    """
    write_messages(first, count, purpose, scratch)
    address = address_of(scratch)
    hash_lanes(address, address + _DIGESTS * scratch.itemsize)


def _made_key(lane: int, scratch: NDArray[np.uint32]) -> np.uint64:
    """A key of those just made: the first 8 bytes of the digest."""
    upper, lower = scratch[_DIGESTS + lane], scratch[_DIGESTS + KEYS + lane]
    return (np.uint64(upper) << np.uint64(32)) | np.uint64(lower)


def _device_key(client: int, purpose: int, scratch: NDArray[np.uint32]) -> np.uint64:
    """The key of one client."""
    make_keys(client, 1, purpose, scratch)
    return made_key(0, scratch)


bits_after = compiled(_bits_after)
write_message = compiled(_write_message)
write_messages = compiled(_write_messages)
make_keys = compiled(_make_keys)
made_key = compiled(_made_key)
device_key = compiled(_device_key)
