"""What models were measured to cost on devices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "measurements",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("raw_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device_model", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("emulated", sa.Boolean(), nullable=False),
        sa.Column("timing_valid", sa.Boolean(), nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("reasons", JSONB(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("os_version", sa.Text(), nullable=False),
        sa.Column("os_release", sa.Text(), nullable=True),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("device_memory_mb", sa.Float(), nullable=False),
        sa.Column("pass_s", JSONB(), nullable=False),
        sa.Column("pass_s_mean", sa.Float(), nullable=True),
        sa.Column("pass_s_stdev", sa.Float(), nullable=True),
        sa.Column("memory_mb", sa.Float(), nullable=True),
        sa.Column("cpu_percent", sa.Float(), nullable=True),
        sa.Column("storage_mb", sa.Float(), nullable=True),
        sa.Column("network_mb", sa.Float(), nullable=True),
        sa.Column("latency_p50_ms", sa.Float(), nullable=True),
        sa.Column("latency_p95_ms", sa.Float(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("task IN ('train', 'infer')", name=op.f("ck_measurements_task")),
        sa.CheckConstraint(
            "NOT ok OR pass_s_mean IS NOT NULL", name=op.f("ck_measurements_ok_has_figures")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurements")),
        sa.UniqueConstraint("raw_sha256", name=op.f("uq_measurements_raw_sha256")),
    )
    op.create_index(
        "measurements_of_model", "measurements", ["model", "task", "device_model"], unique=False
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("measurements")
