"""Click data as FLINT describes it: few clients with many records, rare labels, local tastes.

FLINT's Table 2 gives its ads set a mean of 99 records a client with a far larger deviation and a
label ratio of 0.28. The generator follows that shape: records per client are log-normal, what a
client is shown follows a taste of its own (so clients are not identically distributed), and
whether it clicks depends on the ad, the place, the hour, the client's interests, and a bias of the
client that no feature tells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLIENT_FIELD = "client_id"
LABEL_FIELD = "clicked"

_ADS = 120
_TOPICS = 20
_PUBLISHERS = 40
_REGIONS = 25
_HANDSETS = 12
_POSITIONS = 5


@dataclass(frozen=True, slots=True)
class ClickDataShape:
    """What is generated.

    Attributes:
        median_records: Median of records per client.
        records_sigma: Standard deviation of the logarithm of records per client.
        max_records: Most records of one client.
        label_ratio: Share of clicks over all records that is aimed at.
        taste_concentration: Dirichlet concentration of a client's topics; smaller is less alike.
        client_bias: Standard deviation of a client's own log-odds of clicking.
    """

    median_records: float = 50.0
    records_sigma: float = 1.2
    max_records: int = 3_000
    label_ratio: float = 0.2
    taste_concentration: float = 0.3
    client_bias: float = 0.4


@dataclass(frozen=True, slots=True)
class Clicks:
    """Generated records, a client's rows contiguous; all arrays have shape ``(records,)``.

    Attributes:
        columns: Categorical features by name.
        interests: Topics each record's client declared, one tuple a record.
        probability: Chance of a click each record was drawn with: what no model can beat.
    """

    client_id: NDArray[np.str_]
    columns: dict[str, NDArray[np.str_]]
    interests: tuple[tuple[str, ...], ...]
    clicked: NDArray[np.int8]
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _World:
    """What is the same for every client."""

    topic_of_ad: NDArray[np.int64]
    popularity_of_ad: NDArray[np.float64]
    ad: NDArray[np.float64]
    topic: NDArray[np.float64]
    publisher: NDArray[np.float64]
    hour: NDArray[np.float64]
    position: NDArray[np.float64]


def generate_clicks(
    training_clients: int,
    *,
    seed: int,
    is_held_out: Callable[[str], bool],
    shape: ClickDataShape | None = None,
) -> Clicks:
    """Draw clients until ``training_clients`` of them are not held out, and their records.

    Args:
        training_clients: Clients that will train; held-out ones come on top.
        seed: The same seed gives the same records.
        is_held_out: The rule by which a client's records serve evaluation only.
    """
    shape = shape or ClickDataShape()
    generator = np.random.Generator(np.random.Philox(seed))
    world = _draw_world(generator)
    names: list[str] = []
    training = 0
    while training < training_clients:
        name = f"user-{len(names):05d}"
        names.append(name)
        training += not is_held_out(name)
    return _draw_records(generator, world, names, shape)


def write_click_data(clicks: Clicks, path: Path) -> None:
    """Write records as a Parquet file, one column a feature, interests as a list column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            CLIENT_FIELD: pa.array(clicks.client_id.tolist()),
            LABEL_FIELD: pa.array(clicks.clicked, pa.int8()),
            **{name: pa.array(values.tolist()) for name, values in clicks.columns.items()},
            "interests": pa.array([list(i) for i in clicks.interests], pa.list_(pa.string())),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def _draw_world(generator: np.random.Generator) -> _World:
    popularity = 1.0 / np.arange(1, _ADS + 1) ** 1.1
    return _World(
        topic_of_ad=generator.integers(0, _TOPICS, _ADS),
        popularity_of_ad=popularity / popularity.sum(),
        ad=generator.normal(0, 1.2, _ADS),
        topic=generator.normal(0, 0.7, _TOPICS),
        publisher=generator.normal(0, 1.0, _PUBLISHERS),
        hour=0.4 * np.sin(2 * np.pi * (np.arange(24) - 14) / 24),
        position=np.linspace(0.6, -0.6, _POSITIONS),
    )


def _draw_records(
    generator: np.random.Generator, world: _World, names: list[str], shape: ClickDataShape
) -> Clicks:
    drawn = np.exp(generator.normal(np.log(shape.median_records), shape.records_sigma, len(names)))
    counts = np.clip(drawn, 2, shape.max_records).astype(np.int64)
    owner = np.repeat(np.arange(len(names)), counts)
    parts = [_draw_client(generator, world, count, shape) for count in counts]
    ad, publisher, hour, matches = (np.concatenate([part[i] for part in parts]) for i in range(4))
    position = generator.integers(0, _POSITIONS, len(owner))
    logit = (
        world.ad[ad]
        + world.topic[world.topic_of_ad[ad]]
        + world.publisher[publisher]
        + world.hour[hour]
        + world.position[position]
        + 1.5 * matches
        + generator.normal(0, shape.client_bias, len(names))[owner]
    )
    probability = 1 / (1 + np.exp(-(logit + _intercept(logit, shape.label_ratio))))
    region = generator.integers(0, _REGIONS, len(names))[owner]
    handset = generator.integers(0, _HANDSETS, len(names))[owner]
    return Clicks(
        client_id=np.array(names)[owner],
        columns={
            "ad": _labels("ad", ad),
            "topic": _labels("topic", world.topic_of_ad[ad]),
            "publisher": _labels("publisher", publisher),
            "position": _labels("position", position),
            "hour": _labels("hour", hour),
            "region": _labels("region", region),
            "handset": _labels("handset", handset),
        },
        interests=tuple(
            part[4] for part, count in zip(parts, counts, strict=True) for _ in range(count)
        ),
        clicked=(generator.random(len(owner)) < probability).astype(np.int8),
        probability=probability,
    )


def _draw_client(
    generator: np.random.Generator, world: _World, count: int, shape: ClickDataShape
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], tuple[str, ...]
]:
    """One client's ads, publishers, hours, whether each ad met an interest, and the interests."""
    taste = generator.dirichlet(np.full(_TOPICS, shape.taste_concentration))
    shown = world.popularity_of_ad * (taste[world.topic_of_ad] + 0.01)
    ad = generator.choice(_ADS, count, p=shown / shown.sum())
    favourites = generator.choice(_PUBLISHERS, 6, replace=False)
    publisher = favourites[generator.integers(0, 6, count)]
    awake = generator.integers(0, 24)
    hour = (awake + np.abs(generator.normal(0, 5, count))).astype(np.int64) % 24
    interests = np.sort(
        generator.choice(_TOPICS, 4, replace=False, p=(taste + 0.02) / (taste + 0.02).sum())
    )
    matches = np.isin(world.topic_of_ad[ad], interests)
    return ad, publisher, hour, matches, tuple(f"topic-{i}" for i in interests)


def _intercept(logit: NDArray[np.float64], label_ratio: float) -> float:
    """Constant that makes the mean click probability ``label_ratio``; by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.mean(1 / (1 + np.exp(-(logit + middle))))) < label_ratio:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _labels(name: str, codes: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array([f"{name}-{code}" for code in codes.tolist()])
