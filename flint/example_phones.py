"""Facts about the phones of the example's log, beside those of the emulated fleet."""

from pathlib import Path

import pyarrow as pa

from android_bench.devices.emulated import shipped_profiles
from simulation.availability.generated_log import example_measurements
from simulation.fitting.input_file import write_input


def write_phones(path: Path) -> None:
    """Write ``device_model, cpu_score, memory_gb`` of both, as `flint population build` reads it.

    A made-up phone of the log scores as it trains, and has the memory of the emulated one that
    scores most like it.

    Raises:
        UnwritableInputFile: If it cannot be written.
    """
    fleet = list(shipped_profiles().values())
    rows = [(each.device_model, each.duty, each.memory_mb / 1000.0) for each in fleet]
    measured = example_measurements()
    train_s = measured["train_s_per_5000"].to_pylist()
    for model, seconds in zip(measured["device_model"].to_pylist(), train_s, strict=True):
        score = train_s[0] / seconds
        _, memory_mb = min((abs(each.duty - score), each.memory_mb) for each in fleet)
        rows.append((model, round(score, 3), memory_mb / 1000.0))
    names, scores, memory_gb = zip(*rows, strict=True)
    table = pa.table(
        {
            "device_model": pa.array(names, pa.string()),
            "cpu_score": pa.array(scores, pa.float64()),
            "memory_gb": pa.array(memory_gb, pa.float64()),
        }
    )
    write_input(path, table, {})
