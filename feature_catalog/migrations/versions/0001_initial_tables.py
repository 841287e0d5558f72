"""Initial tables: models, artefacts, outcomes, jobs, devices and data sets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "artifacts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("optimizer", sa.Text(), nullable=False),
        sa.Column("proximal", sa.Boolean(), nullable=False),
        sa.Column("artifact_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint(
            "model",
            "batch_size",
            "optimizer",
            "proximal",
            "manifest_sha256",
            name="uq_artifacts_kind",
        ),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("split_set", sa.Text(), nullable=False),
        sa.Column("roles", postgresql.JSONB(), nullable=False),
        sa.Column("hash_name", sa.Text(), nullable=False),
        sa.Column("hash_seed", sa.BigInteger(), nullable=False),
        sa.Column("encodings", postgresql.JSONB(), nullable=False),
        sa.Column("statistics", postgresql.JSONB(), nullable=False),
        sa.Column("records_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("clients_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_datasets_name_version")),
    )
    op.create_table(
        "devices",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("public_key_der", sa.LargeBinary(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("device_model", sa.Text(), nullable=False),
        sa.Column("os_release", sa.Text(), nullable=False),
        sa.Column(
            "enrolled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_devices")),
    )
    op.create_table(
        "enrolment_tokens",
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("max_devices", sa.Integer(), nullable=False),
        sa.Column("enrolled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "enrolled <= max_devices", name=op.f("ck_enrolment_tokens_within_limit")
        ),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_enrolment_tokens")),
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("job_json", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("flower_run_id", sa.Numeric(precision=20, scale=0), nullable=True),
        sa.Column("stop_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("progress", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "submitted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'finished', 'stopped', 'failed')",
            name=op.f("ck_jobs_status"),
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("position", name=op.f("uq_jobs_position")),
    )
    op.create_index(
        "one_running_job",
        "jobs",
        [sa.literal_column("(true)")],
        unique=True,
        postgresql_where="status = 'running'",
    )
    op.create_index(
        "queued_jobs", "jobs", ["position"], unique=False, postgresql_where="status = 'queued'"
    )
    op.create_table(
        "model_lines",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_number", sa.Integer(), server_default="1", nullable=False),
        sa.Column("production_number", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model_lines")),
    )
    op.create_table(
        "task_outcomes",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Integer(), nullable=False),
        sa.Column("payload_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=True),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_outcomes")),
    )
    op.create_index(op.f("ix_task_outcomes_job_id"), "task_outcomes", ["job_id"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("job_version", sa.Integer(), nullable=True),
        sa.Column("parameters_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("optimizer_state_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("contract_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("metrics", postgresql.JSONB(), nullable=False),
        sa.Column("strategy_state", postgresql.JSONB(), nullable=False),
        sa.Column("release_ids", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(job_id IS NULL) = (job_version IS NULL)",
            name=op.f("ck_model_versions_job_and_version"),
        ),
        sa.ForeignKeyConstraint(
            ["name"], ["model_lines.name"], name=op.f("fk_model_versions_name_model_lines")
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["model_versions.id"],
            name=op.f("fk_model_versions_parent_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint(
            "job_id", "job_version", name=op.f("uq_model_versions_job_id_job_version")
        ),
        sa.UniqueConstraint("name", "number", name=op.f("uq_model_versions_name_number")),
    )


def downgrade() -> None:
    """Drop them, with everything in them."""
    op.drop_table("model_versions")
    op.drop_index(op.f("ix_task_outcomes_job_id"), table_name="task_outcomes")
    op.drop_table("task_outcomes")
    op.drop_table("model_lines")
    op.drop_index("queued_jobs", table_name="jobs", postgresql_where="status = 'queued'")
    op.drop_index("one_running_job", table_name="jobs", postgresql_where="status = 'running'")
    op.drop_table("jobs")
    op.drop_table("enrolment_tokens")
    op.drop_table("devices")
    op.drop_table("datasets")
    op.drop_table("artifacts")
