"""Keys and certificates of one deployment: a private CA, one certificate a role, the token key.

Everything is EC P-256. The CA's key never leaves ``<home>/secrets``; devices, gateways and
operators trust ``<home>/tls/ca.crt``. Certificates name what they may do: only the gateway's may
act as a TLS client, so no other key can pose as a gateway towards the coordinator.

A certificate is renewed when two thirds of its life are over: at every start, and while the server
runs (`renew_certificates`). Gateway and coordinator take a new one up for their next connection
(`live_certificates`); SuperLink reads its own at its start and is started anew.
"""

import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from device_runtime.errors import FlintError
from server.operations.settings import ServerSettings

ROLES = ("gateway", "coordinator", "superlink")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

TOKEN_KEY = "token"  # noqa: S105 - a name
"""What `ensure_keys` calls the token key it made."""

_CA_DAYS = 3650
_ROLE_DAYS = 90
_RENEWED_AFTER = 2 / 3
_TOKEN_KEY_BYTES = 32
_CLIENT_ROLES = frozenset({"gateway"})


class UnusableKeys(FlintError):
    """The CA, its key or the token key is damaged or does not fit, so nobody would be trusted."""

    code = "FLN-1212"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate of the deployment, as an operator sees it.

    Attributes:
        role: ``"ca"`` or one of `ROLES`.
        names: Names and addresses it is valid for.
        renewed_at: When a running server makes a new one.
    """

    role: str
    names: tuple[str, ...]
    valid_from: dt.datetime
    valid_until: dt.datetime

    @property
    def renewed_at(self) -> dt.datetime:
        """When two thirds of its life are over."""
        return self.valid_from + (self.valid_until - self.valid_from) * _RENEWED_AFTER


def read_certificates(settings: ServerSettings) -> tuple[CertificateFacts, ...]:
    """The certificates there are, the CA's first; damaged files are left out."""
    paths = {"ca": settings.ca_certificate} | {role: settings.certificate(role) for role in ROLES}
    return tuple(
        _facts(role, certificate)
        for role, path in paths.items()
        if (certificate := _load_certificate(path)) is not None
    )


def ensure_keys(settings: ServerSettings, hostnames: Sequence[str] = ()) -> tuple[str, ...]:
    """Make what is missing and renew what is about to expire; leave the rest as it is.

    Safe to call at every start. A role's certificate is also made anew when it does not name all
    ``hostnames``, when its key is gone or does not fit, or when another CA signed it. The CA is
    renewed with the same key, so what it signed stays trusted.

    Args:
        hostnames: Names and addresses clients dial besides `LOCAL_NAMES`.

    Returns:
        What was made: `TOKEN_KEY`, ``"ca"``, roles.

    Raises:
        UnusableKeys: If the CA's files or the token key are damaged: mending them silently would
            lock out every enrolled device.
    """
    _private_folder(settings.secrets)
    made = [] if settings.token_key.exists() else [TOKEN_KEY]
    ensure_token_key(settings)
    if settings.insecure:
        return tuple(made)
    settings.ca_certificate.parent.mkdir(parents=True, exist_ok=True)
    ca_key, ca, is_new = _ensure_ca(settings)
    if is_new:
        made.append("ca")
    names = [_general_name(name) for name in dict.fromkeys([*LOCAL_NAMES, *hostnames])]
    for role in ROLES:
        if not _is_current(settings, role, ca, names):
            _issue(settings, role, ca_key, ca, names)
            made.append(role)
    return tuple(made)


def renew_certificates(settings: ServerSettings, now: Collection[str] = ()) -> tuple[str, ...]:
    """Renew what has lived two thirds of its life, for the same names; for a running server.

    Args:
        now: Roles, or ``"ca"``, to renew whatever their age.

    Returns:
        What was made: ``"ca"``, roles.

    Raises:
        UnusableKeys: If the CA's files are damaged.
    """
    if settings.insecure:
        return ()
    ca_key, ca, is_new = _ensure_ca(settings, renew="ca" in now)
    made = ["ca"] if is_new else []
    for role in ROLES:
        names = _names_of(settings, role)
        if role in now or not _is_current(settings, role, ca, names):
            _issue(settings, role, ca_key, ca, names)
            made.append(role)
    return tuple(made)


def ensure_token_key(settings: ServerSettings) -> bytes:
    """Key that signs task tokens, 32 random bytes; made at the first call.

    Raises:
        UnusableKeys: If the file holds anything but 32 bytes.
    """
    path = settings.token_key
    _private_folder(path.parent)
    if not path.exists():
        _write_private(path, secrets.token_bytes(_TOKEN_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _TOKEN_KEY_BYTES:
        raise UnusableKeys(
            f"{path} holds {len(key)} bytes instead of {_TOKEN_KEY_BYTES}; restore it from a "
            "backup, or delete it: a new one is made and devices enrol again"
        )
    path.chmod(0o600)
    return key


def _ensure_ca(
    settings: ServerSettings, *, renew: bool = False
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate, bool]:
    """The CA's key and certificate, and whether that certificate is new."""
    key_path, path = settings.private_key("ca"), settings.ca_certificate
    if not key_path.exists() and not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(key_path, key)
        certificate = _sign_ca(key)
        _write_public(path, certificate)
        return key, certificate, True
    loaded = _load_key(key_path)
    found = _load_certificate(path)
    if loaded is None or (found is not None and found.public_key() != loaded.public_key()):
        raise UnusableKeys(
            f"{key_path} is missing, damaged or not the key of {path}; restore it from a backup, "
            "or delete both: a new CA is made and devices must be given its certificate"
        )
    key_path.chmod(0o600)
    if found is not None and not renew and not _is_due(found):
        return loaded, found, False
    found = _sign_ca(loaded)
    _write_public(path, found)
    return loaded, found, True


def _sign_ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # The subject is the key's own digest, so that a renewed CA has the very same subject.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"FLINT CA {identifier.digest.hex()[:16]}")]
    )
    return (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(
    settings: ServerSettings,
    role: str,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    names: Sequence[x509.GeneralName],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    if role in _CLIENT_ROLES:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"FLINT {role}")])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), _ROLE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )
    # Key before certificate: interrupted in between, the two do not fit and are made anew; a
    # process that reads them in between keeps what it has.
    _write_key(settings.private_key(role), key)
    _write_public(settings.certificate(role), certificate)


def _is_current(
    settings: ServerSettings, role: str, ca: x509.Certificate, names: Sequence[x509.GeneralName]
) -> bool:
    certificate = _load_certificate(settings.certificate(role))
    key = _load_key(settings.private_key(role))
    if certificate is None or key is None or certificate.public_key() != key.public_key():
        return False
    if _is_due(certificate):
        return False
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    settings.private_key(role).chmod(0o600)
    return set(names) <= set(_alternative_names(certificate))


def _names_of(settings: ServerSettings, role: str) -> list[x509.GeneralName]:
    """Names of a role's certificate; those of this machine if there is none."""
    certificate = _load_certificate(settings.certificate(role))
    names = [] if certificate is None else _alternative_names(certificate)
    return names or [_general_name(name) for name in LOCAL_NAMES]


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return []
    return list(found.value)


def _facts(role: str, certificate: x509.Certificate) -> CertificateFacts:
    return CertificateFacts(
        role,
        tuple(str(name.value) for name in _alternative_names(certificate)),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # clocks of devices differ
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_due(certificate: x509.Certificate) -> bool:
    return dt.datetime.now(dt.UTC) >= _facts("", certificate).renewed_at


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _load_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _private_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_private(path, pem)


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def _write_public(path: Path, certificate: x509.Certificate) -> None:
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    draft.replace(path)
