r"""A million inputs through every parser of secure aggregation that faces a device or a host.

Each target takes bytes and may end in its own refusals only. Its corpus is of good inputs; a seeded
mutator flips, overwrites, inserts, repeats, cuts and splices them, so that a run can be repeated.
Some targets sign after the mutation: else nothing behind a signature would ever be reached.

Any other exception, an altered input that is accepted, or one that takes more than ``--limit-s`` of
processor time, half a minute by the clock, or ``--limit-mib`` of memory beyond the start's (a limit
of the process: beyond it, allocations fail) ends the run with the input in hexadecimal. What bounds
an input are the parsers' own limits: 20 KiB a document, 160 items of CBOR in 2 containers, 9
certificates of 1 KiB.

    python benchmarks/fuzz_parsers.py --inputs 1000000
"""

import argparse
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cbor2
from google.protobuf.message import DecodeError

from device_runtime.attestation import AttestationRefused, AttestationTrust, InvalidAttestationTrust
from device_runtime.bounded_cbor import UnfitCbor, decode_cbor
from device_runtime.nitro_document import read_document
from device_runtime.protocol import device_pb2 as pb
from server.secure_aggregation.attesters.nitro import NitroAttester, SecurityModuleFault
from tests.device_runtime.attested_enclaves import (
    NITRO,
    NONCE,
    SOFTWARE,
    SOFTWARE_ROOT,
    enclave_key,
    root_hex,
    trust,
    verify,
)
from tests.device_runtime.nitro_ca import (
    ES384,
    REGISTERS,
    FakeSecurityModule,
    cose,
    encode_payload,
    shared_ca,
)

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


def _evidence(good: pb.Evidence) -> Callable[[bytes], object]:
    """Evidence as it comes, serialised: nothing but what was attested may be accepted."""
    pinned = trust()

    def parse(data: bytes) -> object:
        try:
            evidence = pb.Evidence.FromString(data)
        except DecodeError:
            raise NoMessage from None
        key = verify(evidence, pinned=pinned)
        assert (evidence.document, evidence.enclave_key) == (good.document, good.enclave_key)
        return key

    return parse


def _document(good: pb.Evidence) -> Callable[[bytes], object]:
    """A document beside the good key."""
    pinned = trust()

    def parse(document: bytes) -> object:
        evidence = pb.Evidence(
            provider=good.provider, document=document, enclave_key=good.enclave_key
        )
        key = verify(evidence, pinned=pinned)
        assert document == good.document
        return key

    return parse


def _signed_claims(claims: bytes) -> object:
    """Claims that the trusted software root has signed, whatever they are."""
    signature = SOFTWARE_ROOT.sign(b"flint.attestation.software_root.v1\0" + claims)
    document = bytes.fromhex(root_hex()) + signature + claims
    evidence = pb.Evidence(provider="software_root", document=document, enclave_key=enclave_key())
    return verify(evidence, pinned=_PINNED)


def _signed_payload(payload: bytes) -> object:
    """A payload that a trusted enclave's certificate has signed, whatever it is."""
    evidence = pb.Evidence(
        provider="aws_nitro", document=shared_ca().sign(payload), enclave_key=enclave_key()
    )
    return verify(evidence, pinned=_PINNED)


def _attested_key(key: bytes) -> object:
    """A key that a trusted software root vouches for, whatever it is."""
    return verify(SOFTWARE.evidence(key), pinned=_PINNED)


def _certificates(der: bytes) -> object:
    """One certificate of the path altered, by turns the enclave's and one above it."""
    ca = shared_ca()
    place = len(der) % 4
    bundle = ca.bundle
    fields: dict[str, object] = {"certificate": der}
    if place:
        bundle[place] = der
        fields = {"cabundle": bundle}
    payload = encode_payload(ca.payload(NONCE, bytes(32), fields))
    evidence = pb.Evidence(
        provider="aws_nitro",
        document=cose(ES384, payload, bytes(96)),
        enclave_key=enclave_key(),
    )
    key = verify(evidence, pinned=_PINNED)
    raise AssertionError(f"accepted {key}")


def _answer(answer: bytes) -> object:
    attester = NitroAttester(FakeSecurityModule())
    attester._module = lambda _: answer
    return attester.document(NONCE, bytes(32))


_PINNED = trust()
_SOFTWARE = SOFTWARE.evidence()
_NITRO = NITRO.evidence()
_PAYLOAD = encode_payload(shared_ca().payload(NONCE, bytes(32)))
_OTHER_PAYLOAD = cbor2.dumps(shared_ca().payload(NONCE, bytes(32), {"pcrs": {0: bytes(48)}}))

TARGETS: dict[str, Target] = {
    "evidence_software_root": Target(
        _evidence(_SOFTWARE), (_SOFTWARE.SerializeToString(),), (AttestationRefused, NoMessage)
    ),
    "evidence_aws_nitro": Target(
        _evidence(_NITRO), (_NITRO.SerializeToString(),), (AttestationRefused, NoMessage)
    ),
    "software_document": Target(_document(_SOFTWARE), (_SOFTWARE.document,), (AttestationRefused,)),
    "software_claims_signed": Target(
        _signed_claims, (_SOFTWARE.document[96:],), (AttestationRefused,)
    ),
    "nitro_document": Target(_document(_NITRO), (_NITRO.document,), (AttestationRefused,)),
    "nitro_document_form": Target(
        read_document,
        (_NITRO.document, cose(ES384, _OTHER_PAYLOAD, bytes(96))),
        (AttestationRefused,),
    ),
    "nitro_payload_signed": Target(
        _signed_payload, (_PAYLOAD, _OTHER_PAYLOAD), (AttestationRefused,)
    ),
    "nitro_certificate": Target(
        _certificates,
        (shared_ca().leaf.der, *shared_ca().bundle),
        (AttestationRefused,),
    ),
    "enclave_key_attested": Target(_attested_key, (enclave_key(),), (AttestationRefused,)),
    "cbor": Target(
        lambda data: decode_cbor(data, most_items=160, most_depth=2),
        (_PAYLOAD, _OTHER_PAYLOAD, cbor2.dumps({1: -35})),
        (UnfitCbor,),
    ),
    "trust_file": Target(
        AttestationTrust.from_json,
        (
            _PINNED.to_json().encode(),
            trust(
                measurements=(bytes(32),),
                providers={"software_root": {"public_keys": [root_hex()]}},
            )
            .to_json()
            .encode(),
        ),
        (InvalidAttestationTrust,),
    ),
    "security_module_answer": Target(
        _answer,
        (
            cbor2.dumps({"Attestation": {"document": _NITRO.document}}),
            cbor2.dumps({"DescribePCR": {"lock": True, "data": REGISTERS[0]}}),
            cbor2.dumps({"Error": "InternalError"}),
        ),
        (SecurityModuleFault,),
    ),
}
"""What is fuzzed, by name. Another parser is another entry."""


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


def _limit_memory(more_mib: int) -> None:
    """Let allocations fail once the process is this much larger than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most_bytes = pages * resource.getpagesize() + more_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, resource.RLIM_INFINITY))


def _peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--limit-s", type=float, default=1.0, help="processor time an input")
    parser.add_argument("--limit-mib", type=int, default=256, help="memory beyond the start's")
    options = parser.parse_args()
    targets = {options.target: TARGETS[options.target]} if options.target else TARGETS
    started_mib = _peak_mib()
    _limit_memory(options.limit_mib)
    results = {}
    for name, target in targets.items():
        inputs = -(-options.inputs // len(targets))
        results[name] = fuzz(name, target, inputs, options.seed, options.limit_s)
        print(name, json.dumps(results[name]), file=sys.stderr)
    print(
        json.dumps(
            {
                "inputs": sum(result["inputs"] for result in results.values()),
                "seed": options.seed,
                "slowest_cpu_ms": max(result["slowest_cpu_ms"] for result in results.values()),
                "peak_rss_mib": _peak_mib(),
                "peak_rss_growth_mib": round(_peak_mib() - started_mib, 1),
                "limits": {"cpu_s": options.limit_s, "memory_mib": options.limit_mib},
                "targets": results,
            }
        )
    )


if __name__ == "__main__":
    main()
