"""A certification authority and security module that make documents of AWS Nitro's form.

Names, key usages, path lengths and lifetimes of certificates are those of AWS's own: a root, one
each of region, zone and instance, and the enclave's. Payloads are maps of indefinite length without
a COSE tag, as the hypervisor writes them.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW_S = 1_790_000_000.0
"""When the test documents are made and verified."""

REGISTERS = {index: bytes([0x10 + index]) * 48 for index in (0, 1, 2)} | {
    index: bytes(48) for index in range(3, 16)
}
ES384 = bytes.fromhex("a1013822")  # {1: -35}


@dataclass(frozen=True)
class Issued:
    """One certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def issue(
    name: str,
    issuer: Issued | None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    lives_s: tuple[float, float] = (-3600.0, 3600.0),
    curve: ec.EllipticCurve | None = None,
    may_sign: bool | None = None,
) -> Issued:
    """Issue a certificate valid from and to ``lives_s`` around `NOW_S`; None: a root signs itself.

    Args:
        may_sign: Whether its key usage has certificate signing; by default, if it is a CA.
    """
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = _name(name)
    signs_certificates = ca if may_sign is None else may_sign
    now = dt.datetime.fromtimestamp(NOW_S, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(seconds=lives_s[0]))
        .not_valid_after(now + dt.timedelta(seconds=lives_s[1]))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca or issuer is None,
                content_commitment=not ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=signs_certificates,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=ca,  # as AWS's own: not so in the enclave's certificate
        )
    )
    if ca:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        if issuer:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
    signing_key = issuer.key if issuer else key
    return Issued(builder.sign(signing_key, hashes.SHA384()), key)


def _name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


@dataclass(frozen=True)
class NitroCa:
    """A chain like AWS's, and documents signed at its end."""

    root: Issued
    issuers: tuple[Issued, ...]  # region, zone, instance
    leaf: Issued

    @property
    def bundle(self) -> list[bytes]:
        return [self.root.der, *(issued.der for issued in self.issuers)]

    def payload(
        self, nonce: bytes, user_data: bytes, fields: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """The document's map; ``fields`` replace its own."""
        return {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(NOW_S * 1000),
            "pcrs": REGISTERS,
            "certificate": self.leaf.der,
            "cabundle": self.bundle,
            "public_key": None,
            "user_data": user_data,
            "nonce": nonce,
        } | dict(fields or {})

    def document(self, nonce: bytes, user_data: bytes, /, **fields: object) -> bytes:
        """A signed document."""
        return self.sign(encode_payload(self.payload(nonce, user_data, fields)))

    def sign(self, payload: bytes, protected: bytes = ES384) -> bytes:
        """COSE_Sign1 over any payload."""
        return cose(protected, payload, self.signature(payload, protected))

    def signature(self, payload: bytes, protected: bytes = ES384) -> bytes:
        """``r || s`` of ES384 over the Sig_structure."""
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.leaf.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def cose(
    protected: object, payload: object, signature: object, unprotected: object = None
) -> bytes:
    """The outer array, untagged."""
    return cbor2.dumps([protected, {} if unprotected is None else unprotected, payload, signature])


def encode_payload(fields: Mapping[str, object]) -> bytes:
    """A map of indefinite length, as the hypervisor writes it."""
    pairs = (cbor2.dumps(name) + cbor2.dumps(value) for name, value in fields.items())
    return b"\xbf" + b"".join(pairs) + b"\xff"


def make_ca(**leaf: object) -> NitroCa:
    """A new chain; ``leaf`` changes how the enclave's certificate is issued."""
    root = issue("aws.nitro-enclaves", None, lives_s=(-10 * 365 * 86400.0, 20 * 365 * 86400.0))
    region = issue("region", root, path_length=2)
    zone = issue("zone", region, path_length=1)
    instance = issue("instance", zone, path_length=0)
    settings = {"ca": False} | leaf
    return NitroCa(root, (region, zone, instance), issue("enclave", instance, **settings))


@lru_cache
def shared_ca() -> NitroCa:
    """One chain for all tests that change nothing of it."""
    return make_ca()


@dataclass
class FakeSecurityModule:
    """What answers behind /dev/nsm: CBOR requests to CBOR responses, as the driver carries them."""

    ca: NitroCa = field(default_factory=shared_ca)
    registers: Mapping[int, bytes] = field(default_factory=lambda: REGISTERS)
    requests: list[object] = field(default_factory=list)

    def __call__(self, request: bytes) -> bytes:
        """Answer one request."""
        asked = cbor2.loads(request)
        self.requests.append(asked)
        match asked:
            case {"DescribePCR": {"index": index}} if index in self.registers:
                answer = {"DescribePCR": {"lock": True, "data": self.registers[index]}}
            case {"Attestation": {"nonce": nonce, "user_data": user_data, "public_key": None}}:
                document = self.ca.document(nonce, user_data, pcrs=dict(self.registers))
                answer = {"Attestation": {"document": document}}
            case _:
                answer = {"Error": "InvalidArgument"}
        return cbor2.dumps(answer)
