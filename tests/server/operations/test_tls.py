import ssl
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from server.operations import tls
from server.operations.settings import ServerSettings
from server.operations.tls import (
    UnusableKeys,
    ensure_keys,
    ensure_token_key,
    read_certificates,
    renew_certificates,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def handshake(
    settings: ServerSettings,
    name: str,
    *,
    server: str = "gateway",
    client: str | None = None,
    trust: Path | None = None,
) -> None:
    """A TLS 1.3 handshake in memory, verified by OpenSSL on both sides."""
    accepts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepts.load_cert_chain(settings.certificate(server), settings.private_key(server))
    dials = ssl.create_default_context(cafile=str(trust or settings.ca_certificate))
    dials.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        accepts.verify_mode = ssl.CERT_REQUIRED
        accepts.load_verify_locations(settings.ca_certificate)
        dials.load_cert_chain(settings.certificate(client), settings.private_key(client))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = dials.wrap_bio(to_client, to_server, server_hostname=name)
    far = accepts.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
        if len(done) == 2:
            return
    raise AssertionError("the handshake did not end")


@pytest.mark.parametrize("role", ["gateway", "coordinator", "superlink"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "fl.example.com"])
def test_every_role_is_trusted_under_every_name_it_is_dialled_by(settings, role, name):
    ensure_keys(settings, ["fl.example.com"])
    handshake(settings, name, server=role)


def test_another_name_is_not_trusted(settings):
    ensure_keys(settings)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(settings, "fl.example.com")


def test_the_gateway_may_act_as_a_client_of_the_coordinator(settings):
    ensure_keys(settings)
    handshake(settings, "localhost", server="coordinator", client="gateway")


@pytest.mark.parametrize("role", ["superlink", "coordinator"])
def test_no_other_key_can_pose_as_a_gateway(settings, role):
    ensure_keys(settings)
    with pytest.raises(ssl.SSLError):
        handshake(settings, "localhost", server="coordinator", client=role)


def test_private_keys_are_readable_by_their_owner_only(settings):
    settings.secrets.mkdir(parents=True, mode=0o755)
    ensure_keys(settings)
    assert mode(settings.secrets) == 0o700
    keys = sorted(path.name for path in settings.secrets.iterdir())
    assert keys == ["ca.key", "coordinator.key", "gateway.key", "superlink.key", "token.key"]
    assert {mode(path) for path in settings.secrets.iterdir()} == {0o600}


def test_a_second_call_changes_nothing(settings):
    ensure_keys(settings)
    before = {path: path.read_bytes() for path in settings.home.rglob("*") if path.is_file()}
    ensure_keys(settings)
    after = {path: path.read_bytes() for path in settings.home.rglob("*") if path.is_file()}
    assert after == before


# Certificates begin an hour before they are made, for clocks that differ.
TWO_THIRDS_OVER_DAYS = 0.49 / 24
NOT_QUITE_DAYS = 0.51 / 24


def fingerprints(settings: ServerSettings) -> dict[str, bytes]:
    paths = {"ca": settings.ca_certificate} | {r: settings.certificate(r) for r in tls.ROLES}
    return {role: path.read_bytes() for role, path in paths.items()}


@pytest.mark.parametrize("renew", [ensure_keys, renew_certificates])
def test_certificates_are_renewed_when_two_thirds_of_their_life_are_over(
    settings, monkeypatch, renew
):
    with monkeypatch.context() as patch:
        patch.setattr(tls, "_ROLE_DAYS", TWO_THIRDS_OVER_DAYS)
        assert set(ensure_keys(settings)) == {"token", "ca", *tls.ROLES}
    before = fingerprints(settings)
    assert renew(settings) == tls.ROLES
    after = fingerprints(settings)
    assert after["ca"] == before["ca"]
    assert all(after[role] != before[role] for role in tls.ROLES)
    handshake(settings, "localhost")
    assert renew(settings) == ()
    assert fingerprints(settings) == after


def test_certificates_are_not_renewed_before(settings, monkeypatch):
    monkeypatch.setattr(tls, "_ROLE_DAYS", NOT_QUITE_DAYS)
    ensure_keys(settings)
    before = fingerprints(settings)
    assert renew_certificates(settings) == ()
    assert fingerprints(settings) == before


def test_a_certificate_renewed_while_the_server_runs_is_for_the_same_names(settings):
    ensure_keys(settings, ["fl.example.com", "10.1.2.3"])
    assert renew_certificates(settings, ["gateway"]) == ("gateway",)
    for name in ("fl.example.com", "10.1.2.3", "localhost", "::1"):
        handshake(settings, name)


def test_the_ca_renewed_at_once_keeps_its_key(settings, tmp_path):
    ensure_keys(settings)
    handed_out = tmp_path / "ca-of-a-device.crt"
    handed_out.write_bytes(settings.ca_certificate.read_bytes())
    assert renew_certificates(settings, ["ca"]) == ("ca",)
    assert settings.ca_certificate.read_bytes() != handed_out.read_bytes()
    handshake(settings, "localhost", trust=handed_out)


def test_an_operator_sees_what_each_certificate_is_for_and_when_it_is_renewed(settings):
    ensure_keys(settings, ["fl.example.com"])
    ca, gateway, *_ = read_certificates(settings)
    assert (ca.role, ca.names) == ("ca", ())
    assert (gateway.role, gateway.names[-1]) == ("gateway", "fl.example.com")
    life = gateway.valid_until - gateway.valid_from
    assert abs((gateway.renewed_at - gateway.valid_from) / life - 2 / 3) < 1e-9
    assert 89 < life.days <= 90


def test_without_tls_nothing_is_renewed(insecure):
    ensure_keys(insecure)
    assert renew_certificates(insecure) == ()
    assert read_certificates(insecure) == ()


def test_renewing_the_ca_leaves_everything_trusted_that_was(settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tls, "_CA_DAYS", TWO_THIRDS_OVER_DAYS)
        ensure_keys(settings)
    handed_out = tmp_path / "ca-of-a-device.crt"
    handed_out.write_bytes(settings.ca_certificate.read_bytes())
    gateway = settings.certificate("gateway").read_bytes()
    ensure_keys(settings)
    assert settings.ca_certificate.read_bytes() != handed_out.read_bytes()
    assert settings.certificate("gateway").read_bytes() == gateway
    handshake(settings, "localhost", trust=handed_out)
    handshake(settings, "localhost")


def test_a_new_name_gets_into_the_certificate(settings):
    ensure_keys(settings)
    ensure_keys(settings, ["10.1.2.3"])
    handshake(settings, "10.1.2.3")


def test_a_lost_or_broken_role_key_is_made_anew(settings):
    ensure_keys(settings)
    settings.private_key("gateway").unlink()
    settings.private_key("superlink").write_text("not a key")
    ensure_keys(settings)
    handshake(settings, "localhost")
    handshake(settings, "localhost", server="superlink")


@pytest.mark.parametrize("content", [None, b"not a key"])
def test_a_lost_or_broken_ca_key_is_refused_with_the_mend(settings, content):
    ensure_keys(settings)
    path = settings.private_key("ca")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UnusableKeys, match=r"restore it.*\[FLN-1212\]"):
        ensure_keys(settings)


def test_the_token_key_is_32_bytes_and_stays(settings):
    first = ensure_token_key(settings)
    assert len(first) == 32
    assert ensure_token_key(settings) == first
    settings.token_key.write_bytes(b"short")
    with pytest.raises(UnusableKeys, match="5 bytes instead of 32"):
        ensure_token_key(settings)


def test_without_tls_there_are_no_certificates(insecure):
    ensure_keys(insecure)
    assert [path.name for path in insecure.secrets.iterdir()] == ["token.key"]


def test_certificates_say_what_they_are_for(settings):
    ensure_keys(settings)
    certificate = x509.load_pem_x509_certificate(settings.certificate("superlink").read_bytes())
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [u._name for u in usage] == ["serverAuth"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_ca_is_replaced_while_devices_trust_both(settings, tmp_path):
    """As docs/operations.md says: the next CA comes from a scratch data directory."""
    ensure_keys(settings)
    scratch = replace(settings, home=tmp_path / "scratch")
    ensure_keys(scratch)
    both = tmp_path / "both.crt"
    both.write_bytes(settings.ca_certificate.read_bytes() + scratch.ca_certificate.read_bytes())
    only_old = tmp_path / "old.crt"
    only_old.write_bytes(settings.ca_certificate.read_bytes())
    handshake(settings, "localhost", trust=both)
    settings.private_key("ca").write_bytes(scratch.private_key("ca").read_bytes())
    settings.ca_certificate.write_bytes(scratch.ca_certificate.read_bytes())
    assert ensure_keys(settings) == tls.ROLES
    handshake(settings, "localhost", trust=both)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(settings, "localhost", trust=only_old)
