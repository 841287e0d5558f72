"""Online feature values, and how far views are materialised."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "online_value_sets",
        sa.Column("value_set", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("layout_json", sa.Text(), nullable=False),
        sa.Column("materialized_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("value_set", name=op.f("pk_online_value_sets")),
        sa.UniqueConstraint("sha256", name=op.f("uq_online_value_sets_sha256")),
    )
    op.create_index(op.f("ix_online_value_sets_view"), "online_value_sets", ["view"], unique=False)
    op.create_table(
        "online_values",
        sa.Column("value_set", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("event_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("value_set", "key", name=op.f("pk_online_values")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_table(
        "materializations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("value_set", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_incremental", sa.Boolean(), nullable=False),
        sa.Column("source_stamp", sa.Text(), nullable=False),
        sa.Column("resume_after", JSONB(), nullable=True),
        sa.Column("keys_total", sa.BigInteger(), nullable=True),
        sa.Column("keys_written", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chunks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "start_at IS NULL OR start_at < end_at", name=op.f("ck_materializations_interval")
        ),
        sa.ForeignKeyConstraint(
            ["value_set"],
            ["online_value_sets.value_set"],
            name=op.f("fk_materializations_value_set_online_value_sets"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_materializations")),
    )
    op.create_index("materializations_of_set", "materializations", ["value_set", "id"])


def downgrade() -> None:
    """Drop them, with everything in them."""
    op.drop_table("materializations")
    op.drop_table("online_values")
    op.drop_table("online_value_sets")
