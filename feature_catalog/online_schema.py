"""Tables of online feature values: the newest row of each key, and how far they are materialised.

Moments are whole microseconds since 1970 in UTC: they are compared for every row, and need no
parsing and no time zone.
"""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from feature_catalog.schema_base import Base

CREATED_UNKNOWN_US = -(2**63)
"""`OnlineValueRecord.created_us` where the source does not say when a row was written."""


class OnlineValueSetRecord(Base):
    """The values of one feature view, as far as its keys, source and fields stay the same.

    Attributes:
        value_set: First eight bytes of ``sha256``, as a signed number.
        view: Name of the view.
        sha256: Of ``layout_json``.
        layout_json: Canonical JSON of all that decides what is stored (`online.view_layout`).
        materialized_until: Rows of the source up to this moment have been read; null: none yet.
    """

    __tablename__ = "online_value_sets"

    value_set: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    view: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[bytes] = mapped_column(unique=True)
    layout_json: Mapped[str]
    materialized_until: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class OnlineValueRecord(Base):
    """The newest row of one key. No foreign key: it would be checked for each row of a bulk load.

    Attributes:
        key: Join key values, as `device_runtime.feature_values.encode_key` writes them.
        event_us: When the row became true.
        created_us: When it was written, or `CREATED_UNKNOWN_US`.
        payload: All fields (`online.row_codec`).
    """

    __tablename__ = "online_values"
    # Newer rows replace older ones in place while a page has room: no index entry changes.
    __table_args__ = ({"postgresql_with": {"fillfactor": 80}},)

    value_set: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key: Mapped[bytes] = mapped_column(primary_key=True)
    event_us: Mapped[int] = mapped_column(BigInteger)
    created_us: Mapped[int] = mapped_column(BigInteger)
    payload: Mapped[bytes]


class MaterializationRecord(Base):
    """One interval of a view's source that was read, or is being read, into the online values.

    Attributes:
        start_at: Rows after this moment; null: from the first.
        end_at: Up to and with this moment.
        source_stamp: What the source's files were like; resumed only while they are so.
        resume_after: Join key values of the last row written, in the order of keys; null: none.
        keys_total: Keys there are to write; null: not counted yet.
        keys_written: Keys gone through so far, those included whose online row was newer.
        chunks: Transactions so far.
        skipped: Rows left out, by reason, and where the first of each stood.
    """

    __tablename__ = "materializations"
    __table_args__ = (
        CheckConstraint("start_at IS NULL OR start_at < end_at", name="interval"),
        Index("materializations_of_set", "value_set", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    value_set: Mapped[int] = mapped_column(ForeignKey(OnlineValueSetRecord.value_set))
    start_at: Mapped[dt.datetime | None]
    end_at: Mapped[dt.datetime]
    is_incremental: Mapped[bool]
    source_stamp: Mapped[str]
    resume_after: Mapped[list[Any] | None]
    keys_total: Mapped[int | None] = mapped_column(BigInteger)
    keys_written: Mapped[int] = mapped_column(BigInteger, server_default="0")
    chunks: Mapped[int] = mapped_column(server_default="0")
    skipped: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    actor: Mapped[str]
    started_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[dt.datetime | None]
