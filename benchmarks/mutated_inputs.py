"""Altered inputs through one parser after the other: the means of `fuzz_parsers`."""

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TOKENS = (
    *(bytes([value]) * length for value in (0, 1, 0x7F, 0x80, 0xFF) for length in (1, 2, 4, 8)),
    *(bytes.fromhex(head) for head in ("5f", "9f", "bf", "d2", "d818", "c2", "fb", "f6", "a0")),
    *(bytes.fromhex(head) for head in ("5b7fffffffffffffff", "9bffffffffffffffff", "bb0001")),
    *(b"null", b"true", b"NaN", b"1e999", b"-1", b'"', b"[", b"{", b"}", b"\\u0000", b"[" * 64),
)
_MOST_BYTES = 32 * 1024
_ENDLESS_S = 30.0  # by the clock on the wall: other work may hold the processor for a while


class TookTooLong(BaseException):
    """Raised into a parser that does not end."""


class NoMessage(Exception):
    """The bytes are no protobuf message: gRPC would not have handed them on."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        parse: Takes one input. Raises AssertionError where it accepts what it must not.
        corpus: Good inputs, which are altered.
        allowed: What it may raise; whatever else is a fault.
    """

    parse: Callable[[bytes], object]
    corpus: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...]


def mutate(data: bytes, corpus: tuple[bytes, ...], draw: random.Random) -> bytes:
    """Alter ``data`` in one to six places; the altered is at most 32 KiB long."""
    altered = bytearray(data)
    for _ in range(1 + min(int(draw.expovariate(0.8)), 5)):
        at = draw.randrange(len(altered) + 1)
        until = min(len(altered), at + 1 + int(draw.expovariate(0.1)))
        way = draw.randrange(7)
        if way == 0 and at < len(altered):
            altered[at] ^= 1 << draw.randrange(8)
        elif way == 1 and at < len(altered):
            altered[at] = draw.randrange(256)
        elif way == 2:
            altered[at:at] = draw.choice(_TOKENS)
        elif way == 3:
            token = draw.choice(_TOKENS)
            altered[at : at + len(token)] = token
        elif way == 4:
            altered[at:at] = altered[at:until] * draw.choice((1, 1, 1, 2, 20))
        elif way == 5:
            del altered[at : len(altered) if draw.random() < 0.05 else until]
        else:
            other = draw.choice(corpus)
            start = draw.randrange(len(other) + 1)
            altered[at:until] = other[start : start + 1 + int(draw.expovariate(0.02))]
    return bytes(altered[:_MOST_BYTES])


def fuzz(name: str, target: Target, inputs: int, seed: int, limit_s: float) -> dict[str, Any]:
    """Run one target.

    Raises:
        SystemExit: At the first fault, with the input.
    """
    draw = random.Random(f"{seed}/{name}")
    ends: Counter[str] = Counter()
    slowest_s = total_s = 0.0
    signal.signal(signal.SIGALRM, _stop)
    for good in target.corpus:
        _run(name, target, good)  # loads what is loaded on first use
    for _ in range(inputs):
        data = mutate(draw.choice(target.corpus), target.corpus, draw)
        began_s = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, _ENDLESS_S)
        end = _run(name, target, data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        took_s = time.process_time() - began_s
        ends[end] += 1
        total_s += took_s
        slowest_s = max(slowest_s, took_s)
        if took_s > limit_s:
            sys.exit(f"{name}: {took_s:.3f} s of processor time for {data.hex()}")
    return {
        "inputs": inputs,
        "mean_cpu_us": round(total_s / max(1, inputs) * 1e6, 1),
        "slowest_cpu_ms": round(slowest_s * 1e3, 2),
        "ends": dict(ends.most_common()),
    }


def _stop(*_: object) -> None:
    raise TookTooLong


def _run(name: str, target: Target, data: bytes) -> str:
    """How one input ended: accepted, or why not."""
    try:
        target.parse(data)
    except target.allowed as error:
        refusal = getattr(error, "refusal", None)
        if refusal is not None and refusal.name == "PROVIDER_FAULT":
            sys.exit(f"{name}: {error} for {data.hex()}")
        return type(error).__name__ if refusal is None else str(refusal.name).lower()
    except BaseException as error:  # whatever it is, the input is wanted
        sys.exit(f"{name}: {type(error).__name__}: {error} for {data.hex()}")
    return "accepted"
