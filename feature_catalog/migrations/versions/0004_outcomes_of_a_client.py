"""Task outcomes are found by client and time: a gateway counts how many a device had today."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index."""
    op.create_index("outcomes_of_client", "task_outcomes", ["client_id", "recorded_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("outcomes_of_client", table_name="task_outcomes")
