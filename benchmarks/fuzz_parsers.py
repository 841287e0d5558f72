r"""A million inputs through every parser of secure aggregation that faces a device or a host.

Each target takes bytes and may end in its own refusals only. Its corpus is of good inputs; a seeded
mutator flips, overwrites, inserts, repeats, cuts and splices them, so that a run can be repeated.
Some targets sign or seal after the mutation: else nothing behind that would ever be reached.

Any other exception, an altered input that is accepted, or one that takes more than ``--limit-s`` of
processor time, half a minute by the clock, or ``--limit-mib`` of memory beyond the start's (a limit
of the process: beyond it, allocations fail) ends the run with the input in hexadecimal. What bounds
an input are the parsers' own limits: 20 KiB a document, 160 items of CBOR in 2 containers, 9
certificates of 1 KiB.

    python benchmarks/fuzz_parsers.py --inputs 1000000
"""

import argparse
import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import fuzz_attestation
import fuzz_sealed
from mutated_inputs import Target, fuzz

TARGETS: dict[str, Target] = fuzz_attestation.TARGETS | fuzz_sealed.TARGETS
"""What is fuzzed, by name. Another parser is another entry."""


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
