"""What an operator changes by `flint up`, told in the audit log: settings, keys, certificates."""

import logging
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from device_runtime.errors import FlintError
from feature_catalog.audit_log import SUPERVISOR, AuditAction, AuditLog, without_password
from feature_catalog.database import connect
from server.operations.settings import MissingSettings, ServerSettings
from server.operations.tls import TOKEN_KEY, renew_certificates

log = logging.getLogger(__name__)


def settings_before(home: Path) -> ServerSettings | None:
    """What the last server of a data directory ran with; None if there was none."""
    try:
        return ServerSettings.load(home)
    except MissingSettings:
        return None


def tell_settings(audit: AuditLog, before: ServerSettings | None, after: ServerSettings) -> None:
    """An entry for each setting that is another one now; the first start is one entry."""
    new = _shown(after)
    if before is None:
        audit.append(AuditAction.SETTINGS_CHANGED, "first start", new)
        return
    old = _shown(before)
    for name in sorted(new):
        if old[name] != new[name]:
            change = {"before": old[name], "after": new[name]}
            audit.append(AuditAction.SETTINGS_CHANGED, name, change)


def tell_keys(audit: AuditLog, made: Collection[str], *, actor: str | None = None) -> None:
    """An entry for each key or certificate, as `ensure_keys` and `renew_certificates` name them."""
    for name in made:
        if name == TOKEN_KEY:
            audit.append(AuditAction.KEY_MADE, "token key", actor=actor)
        else:
            audit.append(AuditAction.CERTIFICATE_ISSUED, name, actor=actor)


def renew_and_tell(
    settings: ServerSettings, now: Collection[str] = (), *, actor: str = SUPERVISOR
) -> tuple[str, ...]:
    """`renew_certificates`, told; a database that is away keeps no certificate from being renewed.

    Raises:
        UnusableKeys: If the CA's files are damaged.
    """
    made = renew_certificates(settings, now)
    if made:
        try:
            engine = connect(settings.database_url)
            try:
                tell_keys(AuditLog(engine), made, actor=actor)
            finally:
                engine.dispose()
        except (FlintError, SQLAlchemyError) as error:
            log.warning("renewed %s, which the audit log lacks: %s", ", ".join(made), error)
    return made


def _shown(settings: ServerSettings) -> dict[str, object]:
    shown = asdict(settings) | {"home": str(settings.home)}
    for name in ("database_url", "blob_url"):
        shown[name] = without_password(shown[name])
    return shown
