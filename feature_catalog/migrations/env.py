"""Alembic's entry: migrates over the connection that `feature_catalog.database.upgrade` opened."""

from alembic import context

import feature_catalog.schema  # noqa: F401 - every table
from feature_catalog.schema_base import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
