"""Feature definitions, their history, and the contracts of feature services."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

TABLES = ("feature_applies", "feature_definitions", "feature_contracts")


def upgrade() -> None:
    """Create the tables, and what refuses to change a row."""
    op.create_table(
        "feature_applies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("registry_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("changes", JSONB(), nullable=False),
        sa.Column(
            "applied_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feature_applies")),
    )
    op.create_table(
        "feature_definitions",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition_json", sa.Text(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("apply_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('entity', 'asset', 'feature_view', 'feature_service')",
            name=op.f("ck_feature_definitions_kind"),
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_feature_definitions_version")),
        sa.CheckConstraint(
            "(definition_json IS NULL) = (sha256 IS NULL)",
            name=op.f("ck_feature_definitions_text_and_digest"),
        ),
        sa.ForeignKeyConstraint(
            ["apply_id"],
            ["feature_applies.id"],
            name=op.f("fk_feature_definitions_apply_id_feature_applies"),
        ),
        sa.PrimaryKeyConstraint("kind", "name", "version", name=op.f("pk_feature_definitions")),
    )
    op.create_table(
        "feature_contracts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("service_version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("content_json", sa.Text(), nullable=False),
        sa.Column("apply_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["apply_id"],
            ["feature_applies.id"],
            name=op.f("fk_feature_contracts_apply_id_feature_applies"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feature_contracts")),
        sa.UniqueConstraint(
            "service", "apply_id", name=op.f("uq_feature_contracts_service_apply_id")
        ),
    )
    op.create_index(
        op.f("ix_feature_contracts_sha256"), "feature_contracts", ["sha256"], unique=False
    )
    op.add_column(
        "model_versions", sa.Column("feature_contract_sha256", sa.LargeBinary(), nullable=True)
    )
    op.create_index(
        op.f("ix_model_versions_feature_contract_sha256"),
        "model_versions",
        ["feature_contract_sha256"],
        unique=False,
    )
    op.execute(
        """
        CREATE FUNCTION refuse_feature_history_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'versions of feature definitions are never changed';
        END
        $$
        """
    )
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER additions_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_feature_history_change()"
        )
        op.execute(
            f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_feature_history_change()"
        )


def downgrade() -> None:
    """Drop them, with everything in them."""
    op.drop_index(op.f("ix_model_versions_feature_contract_sha256"), table_name="model_versions")
    op.drop_column("model_versions", "feature_contract_sha256")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_feature_history_change()")
