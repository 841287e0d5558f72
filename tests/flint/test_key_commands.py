import json

import pytest
import typer

from flint.cli.key_commands import list_certificates, renew
from server.operations.settings import ServerSettings
from server.operations.tls import ensure_keys


@pytest.fixture
def settings(tmp_path, database_url):
    settings = ServerSettings(
        tmp_path, database_url, f"file://{tmp_path}/blobs", "h:1", "h:2", "h:3", 4, 5
    )
    ensure_keys(settings, ["fl.example.com"])
    settings.save()
    return settings


def test_certificates_are_listed_with_names_and_dates(settings, capsys):
    list_certificates(home=settings.home, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [one["role"] for one in found] == ["ca", "gateway", "coordinator", "superlink"]
    assert "fl.example.com" in found[1]["names"]
    assert found[1]["valid_from"] < found[1]["renewed_at"] < found[1]["valid_until"]
    list_certificates(home=settings.home)
    assert "fl.example.com" in capsys.readouterr().out


def test_one_is_renewed_at_once(settings, capsys):
    before = settings.certificate("gateway").read_bytes()
    renew(["gateway"], home=settings.home)
    assert capsys.readouterr().out == "renewed: gateway\n"
    assert settings.certificate("gateway").read_bytes() != before


def test_an_unknown_one_is_refused_with_those_there_are(settings):
    with pytest.raises(typer.BadParameter, match="'token' is no certificate; there are ca, gate"):
        renew(["token"], home=settings.home)
