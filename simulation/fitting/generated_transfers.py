"""A log of transfers without real users, from one seed: to try `flint bandwidth fit` with."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from simulation.fitting.input_file import write_input

_MEDIAN_KBPS = {"down": 8000.0, "up": 2500.0}
_TRANSFERS_A_DIRECTION = 4
_BETWEEN_LINKS, _WITHIN_A_LINK, _OF_BOTH_WAYS = 1.0, 0.4, 0.7


def write_transfers(path: Path, clients: int, *, seed: int = 0) -> int:
    """Write ``device_id, direction, bytes, took_s``; the same arguments, the same log.

    Links are lognormal, those of a device are correlated, and transfers over one link vary.

    Returns:
        Rows written.

    Raises:
        UnwritableInputFile: If it cannot be written.
    """
    generator = np.random.default_rng([seed, clients])
    down, own = generator.standard_normal((2, clients))
    up = _OF_BOTH_WAYS * down + np.sqrt(1.0 - _OF_BOTH_WAYS**2) * own
    names = np.array([f"device-{number:08d}" for number in range(clients)], dtype=object)
    parts = []
    for direction, link in (("down", down), ("up", up)):
        rows = clients * _TRANSFERS_A_DIRECTION
        spread = _BETWEEN_LINKS * np.repeat(link, _TRANSFERS_A_DIRECTION)
        spread = spread + _WITHIN_A_LINK * generator.standard_normal(rows)
        sent_bytes = np.exp(generator.normal(13.5, 1.0, rows)).astype(np.int64)
        took_s = 8.0 * sent_bytes / (1000.0 * _MEDIAN_KBPS[direction] * np.exp(spread))
        parts.append(
            pa.table(
                {
                    "device_id": pa.array(np.repeat(names, _TRANSFERS_A_DIRECTION), pa.string()),
                    "direction": pa.array([direction] * rows, pa.string()),
                    "bytes": sent_bytes,
                    "took_s": took_s,
                }
            )
        )
    table = pa.concat_tables(parts)
    write_input(path, table, {"seed": seed})
    return int(table.num_rows)
