"""What each enclave of a job has released, advanced by compare-and-set."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "release_budgets",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("release_id", sa.Text(), nullable=False),
        sa.Column(
            "advanced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", "slot", name=op.f("pk_release_budgets")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("release_budgets")
