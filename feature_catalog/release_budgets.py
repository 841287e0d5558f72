"""What enclaves have released, kept so that none of them releases twice for one model version."""

from dataclasses import dataclass

from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from feature_catalog.schema import ReleaseBudgetRecord

NOTHING_RELEASED = -1


@dataclass(frozen=True, slots=True)
class StoredBudget:
    """A row: see `ReleaseBudgetRecord`."""

    version: int
    state: bytes


class ReleaseBudgets:
    """The table of budgets. It compares and sets states, and knows nothing of what they mean."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, job_id: str, slot: int) -> StoredBudget | None:
        """What an enclave has released; None for nothing."""
        statement = select(ReleaseBudgetRecord.version, ReleaseBudgetRecord.state).where(
            ReleaseBudgetRecord.job_id == job_id, ReleaseBudgetRecord.slot == slot
        )
        with self._engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else StoredBudget(row.version, row.state)

    def advance(
        self,
        job_id: str,
        slot: int,
        before: StoredBudget | None,
        after: StoredBudget,
        release_id: str,
    ) -> bool:
        """Store ``after`` if ``before`` is what is stored; returns whether it was.

        Args:
            before: None for a slot that has released nothing.
        """
        values = {"version": after.version, "state": after.state, "release_id": release_id}
        with self._engine.begin() as connection:
            if before is None:
                try:
                    connection.execute(
                        insert(ReleaseBudgetRecord).values(job_id=job_id, slot=slot, **values)
                    )
                except IntegrityError:
                    return False
                return True
            set_if_same = (
                update(ReleaseBudgetRecord)
                .where(
                    ReleaseBudgetRecord.job_id == job_id,
                    ReleaseBudgetRecord.slot == slot,
                    ReleaseBudgetRecord.version == before.version,
                    ReleaseBudgetRecord.state == before.state,
                )
                .values(advanced_at=func.now(), **values)
            )
            return connection.execute(set_if_same).rowcount == 1

    def newest_version(self, job_id: str) -> int:
        """Newest model version any enclave has released an aggregate for; -1 for none."""
        statement = select(func.max(ReleaseBudgetRecord.version)).where(
            ReleaseBudgetRecord.job_id == job_id
        )
        with self._engine.connect() as connection:
            newest = connection.execute(statement).scalar_one_or_none()
        return NOTHING_RELEASED if newest is None else int(newest)
