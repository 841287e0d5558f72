"""From a data directory to a backup, and to another data directory in which a server comes up."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from feature_catalog.audit_log import AuditLog
from feature_catalog.model_store import NewVersion
from flint.catalog_session import open_catalog
from flint.cli.backup_commands import backup, restore
from server.operations.home_claim import AlreadyRunning, claim_home
from server.operations.up import prepare, start_up
from tests.server.operations.test_up import FREE_PORTS

pytestmark = pytest.mark.integration


@pytest.fixture
def another_home():
    home = Path(tempfile.mkdtemp(prefix="flint-home-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def test_a_server_comes_up_in_what_was_restored(
    flint_home, another_home, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("FLINT_DATABASE_URL", raising=False)
    settings = prepare(flint_home, FREE_PORTS)
    with open_catalog(flint_home) as catalog:
        catalog.models.add_version(NewVersion("ads", "tiny_mlp", b"parameters"))
        catalog.models.promote("ads", 1)
    backup(tmp_path / "backups", home=flint_home, as_json=True)
    assert json.loads(capsys.readouterr().out)["blobs"] == 1

    with claim_home(another_home), pytest.raises(AlreadyRunning, match="stop it before"):
        restore(tmp_path / "backups", home=another_home)
    restore(tmp_path / "backups", home=another_home)
    assert "go on with `flint up`" in capsys.readouterr().out

    supervisor = start_up(another_home, FREE_PORTS)
    try:
        assert supervisor.status().ready
        with open_catalog(another_home) as catalog:
            version = catalog.models.resolve("ads@production")
            assert catalog.models.parameters(version) == b"parameters"
            told = [entry.action for entry in AuditLog(catalog.engine).entries()]
        assert told[-2:] == ["backup.restored", "settings.changed"]
    finally:
        supervisor.stop()
    # Devices trust the same CA, and their credentials are of the same key.
    for name in ("tls/ca.crt", "secrets/token.key"):
        assert (another_home / name).read_bytes() == (settings.home / name).read_bytes()
