"""What a gateway asks the catalog: enrolled devices and stored task outcomes."""

import datetime as dt

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from device_runtime.errors import FlintError
from feature_catalog.devices import DeviceRegistry
from feature_catalog.release_budgets import ReleaseBudgets
from feature_catalog.task_outcomes import count_tasks_of, find_outcome
from server.coordination.tasks import Outcome
from server.gateway.answers import Answer, OutcomesUnreachable


class EnrolmentUnavailable(FlintError):
    """The database of devices does not answer, so nobody can enrol now."""

    code = "FLN-1265"


class CatalogOutcomes:
    """The `OutcomeStore` in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, task_id: str) -> Answer | None:
        """How a task ended, or None if that is not stored.

        Raises:
            OutcomesUnreachable: If the database does not answer.
        """
        try:
            row = find_outcome(self._engine, task_id)
        except SQLAlchemyError as error:
            raise OutcomesUnreachable(
                "the database does not answer, so it cannot be told whether a task was answered "
                "before; start it again, devices come back by themselves"
            ) from error
        if row is None:
            return None
        return Answer(Outcome(row.outcome), row.reason, row.reason_code, row.payload_sha256)


class CatalogReleases:
    """What enclaves have released, in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._budgets = ReleaseBudgets(engine)

    def newest_version(self, job_id: str) -> int:
        """Newest version an aggregate was released for; -1 for none.

        Raises:
            OutcomesUnreachable: If the database does not answer.
        """
        try:
            return self._budgets.newest_version(job_id)
        except SQLAlchemyError as error:
            raise OutcomesUnreachable(
                "the database does not answer, so it cannot be told what was released before; "
                "start it again, devices come back by themselves"
            ) from error


class CatalogHistory:
    """The `TaskHistory` in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def count_tasks(self, device_id: str, since: dt.datetime) -> int:
        """Tasks of a device that have ended since then.

        Raises:
            OutcomesUnreachable: If the database does not answer.
        """
        try:
            return count_tasks_of(self._engine, device_id, since)
        except SQLAlchemyError as error:
            raise OutcomesUnreachable(
                "the database does not answer, so it cannot be told how many tasks a device has "
                "had today; start it again, devices come back by themselves"
            ) from error


class CatalogDevices:
    """The `DeviceRegister` in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._registry = DeviceRegistry(engine)

    def hardware(self, device_id: str) -> tuple[str, str] | None:
        """Model and OS release of a device; None if it is not enrolled.

        Raises:
            OutcomesUnreachable: If the database does not answer.
        """
        try:
            return self._registry.hardware(device_id)
        except SQLAlchemyError as error:
            raise OutcomesUnreachable(
                "the database does not answer, so it cannot be told of which model a device is; "
                "start it again, devices come back by themselves"
            ) from error


class CatalogEnrolment:
    """Enrolment against Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._registry = DeviceRegistry(engine)

    def enrol(
        self,
        token: str,
        device_id: str,
        public_key_der: bytes,
        app_id: str,
        device_model: str,
        os_release: str,
    ) -> None:
        """Enrol a device; idempotent for the same key.

        Raises:
            InvalidEnrolmentToken: If the token lets nobody in.
            EnrolmentUnavailable: If the database does not answer.
        """
        try:
            self._registry.enrol(token, device_id, public_key_der, app_id, device_model, os_release)
        except SQLAlchemyError as error:
            raise EnrolmentUnavailable(
                "the database does not answer, so no device can enrol now; start it again"
            ) from error
