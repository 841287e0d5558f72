"""Who is who: which data client lives on which traced device, when their numbers differ.

No record of availability, speed and data of the same people exists, so they are joined by chance
(FLINT, section 5, re-samples traces to the size of the proxy data). The join is decided by a seed
alone and written down with the run.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.portable_math import Floats
from simulation.random_streams import RandomStream, RandomStreams

Indices = NDArray[np.int32]
"""Of clients, devices and links: memory is what limits how many there can be."""
Counts = NDArray[np.int32] | NDArray[np.int64]
"""Of records."""
Assignment = Literal["random", "by_activity"]


class PopulationTooLarge(FlintError):
    """More clients are asked for than data or devices are there, and re-sampling is off."""

    code = "FLN-1708"


@dataclass(frozen=True, slots=True)
class PopulationMapping:
    """The join, by number of the simulated client.

    Attributes:
        data_client: Index of the client in the data set, ascending; shape ``(clients,)``.
        device: Index of the device in the availability trace; shape ``(clients,)``.
    """

    data_client: Indices
    device: Indices

    def __len__(self) -> int:
        return len(self.data_client)

    def held(self, records: Counts) -> Counts:
        """Records of each simulated client, shape ``(clients,)``.

        Args:
            records: Of each data client; handed back as they are if each is one simulated client.
        """
        same = len(records) == len(self) and bool((np.diff(self.data_client) == 1).all())
        return records if same else records[self.data_client]

    def to_table(self, data_client_ids: pa.Array, device_ids: pa.Array) -> pa.Table:
        """The mapping as it is recorded: columns ``client``, ``data_client_id``, ``device_id``.

        Args:
            data_client_ids: By index, whole numbers or text.
            device_ids: By index.
        """
        return pa.table(
            {
                "client": pa.array(np.arange(len(self))),
                "data_client_id": data_client_ids.take(pa.array(self.data_client)),
                "device_id": device_ids.take(pa.array(self.device)),
            }
        )

    @classmethod
    def from_table(
        cls, table: pa.Table, data_client_ids: pa.Array, device_ids: pa.Array
    ) -> "PopulationMapping":
        """Read back what `to_table` wrote, against the same data set and trace.

        Raises:
            ValueError: If an id is not among those given.
        """
        found = []
        for column, ids in (("data_client_id", data_client_ids), ("device_id", device_ids)):
            index = pc.index_in(table[column].combine_chunks().cast(ids.type), value_set=ids)
            if index.null_count:
                raise ValueError(f"{column} of the recorded population is not in its source")
            found.append(index.to_numpy(zero_copy_only=False).astype(np.int32))
        return cls(found[0], found[1])


def assign_population(
    records: Counts,
    available_share: Floats,
    *,
    clients: int | None = None,
    assignment: Assignment = "random",
    resample_availability: bool = False,
    resample_data: bool = False,
    seed: int = 0,
) -> PopulationMapping:
    """Join data clients with traced devices.

    Fewer clients than there are data or devices: a random choice of them. More: with re-sampling
    each is used equally often, and those used once more are chosen at random, so that the curve of
    availability over the week and the distribution of records stay as they were.

    Args:
        records: Records of each data client, shape ``(data clients,)``.
        available_share: Share of time each device is available, shape ``(devices,)``.
        clients: Size of the population; by default as many as there are data clients.
        assignment: ``random``, or ``by_activity``: the client with the most records on the device
            available for longest, and so on; among equals by chance.
        resample_availability: Whether one traced device may stand for several clients.
        resample_data: Whether one data client may stand for several clients.
        seed: The population's own, so that trials differ in all but the population.

    Raises:
        PopulationTooLarge: If there are too few data clients or devices and re-sampling them is
            off.
    """
    count = len(records) if clients is None else clients
    _require(count, len(records), resample_data, "data clients", "data")
    _require(count, len(available_share), resample_availability, "devices", "availability")
    streams = RandomStreams(seed)
    data_client = np.sort(_sample(len(records), count, streams["population/data"]))
    device = _sample(len(available_share), count, streams["population/devices"])
    shuffled = device[streams["population/assignment"].permutation(count)]
    if assignment == "random":
        return PopulationMapping(data_client, shuffled)
    # Both in descending order; the shuffles break ties.
    by_records = streams["population/ties"].permutation(count)
    by_records = by_records[np.argsort(-records[data_client][by_records], kind="stable")]
    by_share = shuffled[np.argsort(-available_share[shuffled], kind="stable")]
    matched = np.empty(count, dtype=np.int32)
    matched[by_records] = by_share
    return PopulationMapping(data_client, matched)


def _sample(available: int, count: int, stream: RandomStream) -> Indices:
    """``count`` of ``available`` indices, each used equally often or once more."""
    rounds, rest = divmod(count, available)
    whole = np.tile(np.arange(available, dtype=np.int32), rounds)
    if rest == 0:
        return whole
    return np.concatenate((whole, stream.permutation(available)[:rest].astype(np.int32)))


def _require(count: int, available: int, resample: bool, what: str, key: str) -> None:
    if available == 0:
        raise PopulationTooLarge(
            f"population: there are no {what} at all; give a file that has some"
        )
    if count > available and not resample:
        raise PopulationTooLarge(
            f"population: {count} clients are asked for, but there are only {available} {what}; "
            f"lower population.clients, or set population.resample.{key}: true to use some again"
        )
