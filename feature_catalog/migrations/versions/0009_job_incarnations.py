"""Which code drove a job each time a coordinator took it up, and which of these stored what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the table and the column; of what is past nothing is made up."""
    op.create_table(
        "job_incarnations",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("versions", JSONB(), nullable=False),
        sa.Column(
            "claimed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("pk_job_incarnations")),
    )
    op.add_column("model_versions", sa.Column("job_epoch", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop them, with everything in them."""
    op.drop_column("model_versions", "job_epoch")
    op.drop_table("job_incarnations")
