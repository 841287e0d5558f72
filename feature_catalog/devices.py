"""Enrolled devices and the tokens they enrol with."""

import datetime as dt
import hashlib
import secrets

from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from feature_catalog.audit_log import AuditAction, append_entry
from feature_catalog.schema import DeviceRecord, EnrolmentTokenRecord

_TOKEN_BYTES = 32


class InvalidEnrolmentToken(FlintError):
    """An enrolment token is unknown, used up or expired."""

    code = "FLN-1240"


class DeviceAlreadyEnrolled(InvalidEnrolmentToken):
    """A device id was enrolled before, with another key."""

    code = "FLN-1241"


class DeviceRegistry:
    """Devices and their public keys in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create_enrolment_token(self, max_devices: int, valid_for_s: float) -> str:
        """Make a token that lets devices in; only its SHA-256 is kept.

        Args:
            max_devices: How many devices may enrol with it, at least 1.
            valid_for_s: Seconds from now.

        Raises:
            ValueError: If a number is not positive.
        """
        if max_devices < 1 or valid_for_s <= 0:
            raise ValueError(f"{max_devices=} and {valid_for_s=} must be positive")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        values = {
            "token_sha256": _digest(token),
            "max_devices": max_devices,
            "expires_at": func.now() + dt.timedelta(seconds=valid_for_s),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(EnrolmentTokenRecord).values(values))
            append_entry(
                connection,
                AuditAction.ENROLMENT_TOKEN_MADE,
                _shown(_digest(token)),
                {"max_devices": max_devices, "valid_for_s": valid_for_s},
            )
        return token

    def end_enrolment_tokens(self) -> int:
        """End every token that lets devices in; returns how many there were.

        A device enrolled with one of them may still ask for its credential again.
        """
        record = EnrolmentTokenRecord
        statement = (
            update(record)
            .where(record.expires_at > func.now())
            .values(expires_at=func.now())
            .returning(record.token_sha256)
        )
        with self._engine.begin() as connection:
            ended = connection.execute(statement).scalars().all()
            for digest in ended:
                subject = _shown(digest)
                append_entry(connection, AuditAction.ENROLMENT_TOKEN_ENDED, subject)
        return len(ended)

    def enrol(
        self,
        token: str,
        device_id: str,
        public_key_der: bytes,
        app_id: str,
        device_model: str,
        os_release: str,
    ) -> None:
        """Enrol a device. A repeat with the same key and a token once valid changes nothing.

        So a device whose answer was lost just asks again, also when its own first try used the
        token up.

        Raises:
            InvalidEnrolmentToken: If the token is unknown, used up or expired.
            DeviceAlreadyEnrolled: If the device id is enrolled with another key.
        """
        with Session(self._engine) as session, session.begin():
            # The lock on its token's row lets devices of one token in one after another.
            record = session.get(EnrolmentTokenRecord, _digest(token), with_for_update=True)
            if record is None:
                raise InvalidEnrolmentToken(
                    "the enrolment token is not known; ask the operator for one of this server"
                )
            if self._is_known(session, device_id, public_key_der):
                return
            if record.expires_at <= session.execute(select(func.now())).scalar_one():
                raise InvalidEnrolmentToken(
                    f"the enrolment token expired at {record.expires_at:%Y-%m-%d %H:%M} UTC; ask "
                    "the operator for a new one"
                )
            if record.enrolled >= record.max_devices:
                raise InvalidEnrolmentToken(
                    f"the enrolment token has let in its {record.max_devices} devices; ask the "
                    "operator for a new one"
                )
            added = session.execute(
                insert_or_skip(DeviceRecord)
                .values(
                    device_id=device_id,
                    public_key_der=public_key_der,
                    app_id=app_id,
                    device_model=device_model,
                    os_release=os_release,
                )
                .on_conflict_do_nothing()
                .returning(DeviceRecord.device_id)
            ).one_or_none()
            if added is None:  # enrolled with another token in this very moment
                self._is_known(session, device_id, public_key_der)
                return
            record.enrolled += 1

    def public_key(self, device_id: str) -> bytes | None:
        """A device's public key (DER), or None when it is not enrolled."""
        statement = select(DeviceRecord.public_key_der).where(DeviceRecord.device_id == device_id)
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def hardware(self, device_id: str) -> tuple[str, str] | None:
        """Device model and OS release, as it said when it enrolled; None if it is not enrolled."""
        record = DeviceRecord
        statement = select(record.device_model, record.os_release).where(
            record.device_id == device_id
        )
        with self._engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else (row.device_model, row.os_release)

    def count(self) -> int:
        """Number of enrolled devices."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(DeviceRecord)).scalar_one()

    def _is_known(self, session: Session, device_id: str, public_key_der: bytes) -> bool:
        statement = select(DeviceRecord.public_key_der).where(DeviceRecord.device_id == device_id)
        known = session.execute(statement).scalar_one_or_none()
        if known is not None and known != public_key_der:
            raise DeviceAlreadyEnrolled(
                f"device {device_id} is enrolled with another key; a device that lost its key "
                "enrols under a new id"
            )
        return known is not None


def _shown(digest: bytes) -> str:
    """Enough to tell tokens apart, and no way back to the token."""
    return f"token {digest.hex()[:12]}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
