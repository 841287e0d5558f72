"""A view of every kind of field, over a Parquet file or a table, and the rows for it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import Boolean as SqlBoolean

from feature_catalog.definitions import (
    Bool,
    CloudSource,
    Dtype,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    String,
)
from feature_catalog.definitions.catalog_set import DefinitionSet, check_set, key_of

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
FIELDS = [
    Field("seen", Bool),
    Field("clicks", Int32),
    Field("ctr", Float32),
    Field("topic", String),
    Field("taste", Float32, (2,)),
]
_ARROW = {
    "user": pa.string(),
    "ad": pa.int64(),
    "event_ts": pa.timestamp("us", tz="UTC"),
    "created_ts": pa.timestamp("us", tz="UTC"),
    "seen": pa.bool_(),
    "clicks": pa.int64(),
    "ctr": pa.float32(),
    "topic": pa.string(),
    "taste": pa.list_(pa.float32()),
}
_SQL = {
    "user": Text,
    "ad": BigInteger,
    "event_ts": DateTime(timezone=True),
    "created_ts": DateTime(timezone=True),
    "seen": SqlBoolean,
    "clicks": Integer,
    "ctr": REAL,
    "topic": Text,
    "taste": ARRAY(REAL),
}

Row = Mapping[str, Any]


def hours(count: float) -> dt.datetime:
    """A moment so many hours after the first."""
    return START + dt.timedelta(hours=count)


def row(user: str | None, ad: int | None, event: float | None, **values: Any) -> dict[str, Any]:
    """A source's row; times in hours after the first moment."""
    created = values.pop("created", event)
    return {
        "user": user,
        "ad": ad,
        "event_ts": None if event is None else hours(event),
        "created_ts": None if created is None else hours(created),
        **{field.name: values.get(field.name) for field in FIELDS},
    }


def definitions(
    *,
    table: str | None = None,
    fields: Sequence[Field] = tuple(FIELDS),
    ttl: dt.timedelta | None = None,
    ad_dtype: Dtype = Int64,
) -> DefinitionSet:
    """The view ``pairs`` of a user and an ad, and the service ``served`` of it."""
    where = {"path": "pairs.parquet"} if table is None else {"table": table}
    view = FeatureView(
        name="pairs",
        entities=["user", "ad"],
        source=CloudSource(**where, created_ts="created_ts"),
        schema=fields,
        ttl=ttl,
    )
    every = [
        Entity("user", join_keys=["user"]),
        Entity("ad", join_keys=["ad"], dtype=ad_dtype),
        view,
        FeatureService("served", [view]),
    ]
    found = DefinitionSet({key_of(each): each for each in every})
    check_set(found)
    return found


def write_parquet(folder: Path, rows: Sequence[Row]) -> None:
    """Make the rows the view's file."""
    columns = {name: [each[name] for each in rows] for name in _ARROW}
    table = pa.table({name: pa.array(columns[name], kind) for name, kind in _ARROW.items()})
    pq.write_table(table, folder / "pairs.parquet")


def write_table(engine: Engine, rows: Sequence[Row]) -> None:
    """Make the rows the view's table."""
    source = Table("pairs", MetaData(), *(Column(name, kind) for name, kind in _SQL.items()))
    source.drop(engine, checkfirst=True)
    source.create(engine)
    if rows:
        with engine.begin() as connection:
            connection.execute(source.insert(), list(rows))
