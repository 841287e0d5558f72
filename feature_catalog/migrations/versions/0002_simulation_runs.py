"""Simulation runs, and the files an environment names."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "simulation_runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("job_json", sa.Text(), nullable=False),
        sa.Column("environment_json", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("executors", sa.Integer(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("versions", postgresql.JSONB(), nullable=False),
        sa.Column("summary", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("files", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("checkpoint_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('job', 'flower_app')", name=op.f("ck_simulation_runs_kind")),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'failed')", name=op.f("ck_simulation_runs_status")
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_simulation_runs")),
        sa.UniqueConstraint("position", name=op.f("uq_simulation_runs_position")),
    )
    op.create_index(op.f("ix_simulation_runs_name"), "simulation_runs", ["name"], unique=False)
    op.create_table(
        "environment_inputs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=False),
        sa.Column("statistics", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('availability', 'device_profiles', 'device_population', 'bandwidth')",
            name=op.f("ck_environment_inputs_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment_inputs")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_environment_inputs_name_version")),
    )


def downgrade() -> None:
    """Drop them, with everything in them."""
    op.drop_table("environment_inputs")
    op.drop_index(op.f("ix_simulation_runs_name"), table_name="simulation_runs")
    op.drop_table("simulation_runs")
