"""Point-in-time joins over Postgres tables, by Postgres."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2
import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Numeric,
    Select,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    case,
    cast,
    column,
    extract,
    func,
    inspect,
    select,
    table,
    types,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.definitions.sources import CloudSource
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.entity_rows import MOMENT, ROW
from feature_catalog.offline.errors import MissingSourceColumn, UnfitValues, UnreadableSource
from feature_catalog.offline.newest_rows import EVENT, SourceColumns, newest_rows
from feature_catalog.offline.postgres_copy import copy_in, copy_out
from feature_catalog.offline.source_columns import refuse_key, refuse_time

_WORK_MEMORY = "256MB"
