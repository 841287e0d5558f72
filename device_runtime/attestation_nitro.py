"""AWS Nitro Enclaves: the Nitro hypervisor vouches for an enclave, AWS's root for the hypervisor.

A document is a ``COSE_Sign1`` (RFC 9052) under ES384 around a CBOR map with the enclave's platform
configuration registers (PCRs), and the certificates from AWS's root down to the hypervisor's key.
It is checked step by step as AWS documents it ("Nitro Enclaves Attestation Process", sections 3.2.1
to 3.2.4, in github.com/aws/aws-nitro-enclaves-nsm-api), with cbor2 and cryptography's own path
validation. AWS revokes nothing on this path (3.2.4: no CRL): its certificates live for hours.

The measurement is ``SHA-256(PCR0 || PCR1 || PCR2)``: image, kernel with boot RAM disk, application.
The measurements of the app and of the job are thus the list of allowed PCRs. In debug mode, where
the host can read the enclave's console, the hypervisor gives PCRs of zeros, which are refused.

Tested with documents of this form that a test CA made; not run on Nitro hardware.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from device_runtime.attestation_provider import (
    AttestationRefusal,
    AttestationRefused,
    AttestedClaims,
    InvalidAttestationTrust,
)
from device_runtime.bounded_cbor import encode_cbor
from device_runtime.nitro_document import (
    MOST_CERTIFICATES,
    REGISTER_BYTES,
    SIGNATURE_BYTES,
    NitroDocument,
    read_document,
)

PROVIDER = "aws_nitro"
MEASURED_REGISTERS = (0, 1, 2)

_NO_CERTIFICATE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    UserWarning,  # cryptography's of what it will refuse one day, where warnings are errors
)


def registers_measurement(registers: Mapping[int, bytes]) -> bytes:
    """Return ``SHA-256(PCR0 || PCR1 || PCR2)``, as allow-lists name a Nitro enclave.

    Raises:
        ValueError: If one of them is missing, or not of 48 bytes.
    """
    digest = hashlib.sha256()
    for index in MEASURED_REGISTERS:
        register = registers.get(index, b"")
        if len(register) != REGISTER_BYTES:
            raise ValueError(f"PCR{index} has {len(register)} bytes, not {REGISTER_BYTES}")
        digest.update(register)
    return digest.digest()


class NitroVerifier:
    """Trusts what chains to one of these root certificates."""

    provider = PROVIDER

    def __init__(self, roots: tuple[x509.Certificate, ...]) -> None:
        self._roots = {root.public_bytes(Encoding.DER) for root in roots}
        self._policy = (
            verification.PolicyBuilder()
            .store(verification.Store(list(roots)))
            .max_chain_depth(MOST_CERTIFICATES)
            .extension_policies(ca_policy=_issuers(), ee_policy=_signers())
        )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "NitroVerifier":
        """Read ``{"root_certificates": [PEM, ...]}``, the provider's part of the app's trust.

        `docs/attestation.md` says where AWS publishes its root, and how to check it.

        Raises:
            InvalidAttestationTrust: If it is anything else.
        """
        where = f"providers.{PROVIDER}.root_certificates"
        roots = options.get("root_certificates")
        if set(options) != {"root_certificates"} or not isinstance(roots, list) or not roots:
            raise InvalidAttestationTrust(
                f"providers.{PROVIDER} must hold root_certificates, a list of certificates in PEM, "
                f"and nothing else; it holds {', '.join(sorted(options)) or 'nothing'}"
            )
        if len(roots) > MOST_CERTIFICATES:
            raise InvalidAttestationTrust(
                f"{where} names {len(roots)} certificates; at most {MOST_CERTIFICATES}"
            )
        return cls(tuple(_root(pem, f"{where}[{place}]") for place, pem in enumerate(roots)))

    def verify(self, document: bytes, now_s: float) -> AttestedClaims:
        """See `Verifier.verify`."""
        read = read_document(document)
        leaf, bundle = self._read_certificates(read, now_s)
        self._verify_chain(leaf, bundle, now_s)
        _verify_signature(leaf, read)
        return AttestedClaims(
            measurement=_measurement(read.registers),
            user_data=read.user_data,
            nonce=read.nonce,
            issued_at_s=read.issued_at_ms / 1000,
        )

    def _read_certificates(
        self, read: NitroDocument, now_s: float
    ) -> tuple[x509.Certificate, list[x509.Certificate]]:
        if read.bundle[0] not in self._roots:
            raise AttestationRefused(
                AttestationRefusal.UNTRUSTED_ROOT,
                f"the chain begins with the certificate of SHA-256 "
                f"{hashlib.sha256(read.bundle[0]).hexdigest()}, which is none of the "
                f"{len(self._roots)} roots this app trusts",
            )
        certificates = []
        for name, der in (
            ("certificate", read.certificate),
            *((f"cabundle[{place}]", der) for place, der in enumerate(read.bundle)),
        ):
            certificate = _certificate(name, der)
            _require_valid_now(name, certificate, now_s)
            certificates.append(certificate)
        return certificates[0], certificates[1:]

    def _verify_chain(
        self, leaf: x509.Certificate, bundle: list[x509.Certificate], now_s: float
    ) -> None:
        """The path must be the bundle itself, in its order: nothing left out, nothing beside."""
        policy = self._policy.time(dt.datetime.fromtimestamp(now_s, dt.UTC))
        try:
            chain = policy.build_client_verifier().verify(leaf, bundle[1:]).chain
        except (verification.VerificationError, *_NO_CERTIFICATE) as error:
            raise AttestationRefused(
                AttestationRefusal.BAD_CERTIFICATE_CHAIN,
                f"the certificate does not chain to its root: {error!s:.300}",
            ) from error
        if chain != [leaf, *reversed(bundle)]:
            raise AttestationRefused(
                AttestationRefusal.BAD_CERTIFICATE_CHAIN,
                f"the chain of {len(chain)} certificates is not the bundle of {len(bundle)} and "
                f"the certificate, in that order",
            )


def _issuers() -> verification.ExtensionPolicy:
    """AWS 3.2.3.2 and 3.2.3.3: a CA, both extensions critical, and it may sign certificates.

    Path lengths are held against the path by the library itself.
    """

    def may_sign(_: object, certificate: x509.Certificate, usage: x509.KeyUsage) -> None:
        if not usage.key_cert_sign:
            raise ValueError(f"{certificate.subject.rfc4514_string()} may not sign certificates")

    def is_issuer(_: object, certificate: x509.Certificate, basic: x509.BasicConstraints) -> None:
        if not basic.ca:
            raise ValueError(f"{certificate.subject.rfc4514_string()} is no CA")

    critical = verification.Criticality.CRITICAL
    policy = verification.ExtensionPolicy.permit_all()
    policy = policy.require_present(x509.BasicConstraints, critical, is_issuer)
    return policy.require_present(x509.KeyUsage, critical, may_sign)


def _signers() -> verification.ExtensionPolicy:
    """AWS 3.2.3.3: the certificate's key signs documents and no certificates."""

    def signs(_: object, certificate: x509.Certificate, usage: x509.KeyUsage) -> None:
        if not usage.digital_signature or usage.key_cert_sign:
            raise ValueError(f"{certificate.subject.rfc4514_string()} is for other use")

    def is_no_issuer(
        _: object, certificate: x509.Certificate, basic: x509.BasicConstraints | None
    ) -> None:
        if basic is not None and (basic.ca or basic.path_length is not None):
            raise ValueError(f"{certificate.subject.rfc4514_string()} is a CA")

    agnostic = verification.Criticality.AGNOSTIC  # AWS's own has a key usage that is not critical
    policy = verification.ExtensionPolicy.permit_all()
    policy = policy.may_be_present(x509.BasicConstraints, agnostic, is_no_issuer)
    return policy.require_present(x509.KeyUsage, agnostic, signs)


def _root(pem: object, where: str) -> x509.Certificate:
    try:
        if not isinstance(pem, str):
            raise TypeError("it is no text")
        root = x509.load_pem_x509_certificate(pem.encode())
        root.verify_directly_issued_by(root)
    except (*_NO_CERTIFICATE, InvalidSignature) as error:
        raise InvalidAttestationTrust(
            f"{where} is no self-signed certificate in PEM ({error!s:.200})"
        ) from error
    return root


def _measurement(registers: dict[int, bytes]) -> bytes:
    for index in MEASURED_REGISTERS:
        if index not in registers:
            raise AttestationRefused(
                AttestationRefusal.MISSING_REGISTER,
                f"the document has registers {sorted(registers)}, but not PCR{index}, which is "
                f"measured",
            )
        if not any(registers[index]):
            raise AttestationRefused(
                AttestationRefusal.DEBUG_MODE,
                f"PCR{index} is all zeros, as the hypervisor says it of an enclave in debug mode, "
                f"which the host can read",
            )
    return registers_measurement(registers)


def _certificate(name: str, der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsed when asked for: whatever is wrong with them is to come out here.
        _ = certificate.extensions, certificate.public_key(), certificate.not_valid_after_utc
        _ = certificate.subject, certificate.issuer
    except _NO_CERTIFICATE as error:
        raise AttestationRefused(
            AttestationRefusal.BAD_CERTIFICATE_CHAIN, f"{name} is no certificate ({error!s:.200})"
        ) from error
    return certificate


def _require_valid_now(name: str, certificate: x509.Certificate, now_s: float) -> None:
    from_s = certificate.not_valid_before_utc.timestamp()
    until_s = certificate.not_valid_after_utc.timestamp()
    if not from_s <= now_s <= until_s:
        raise AttestationRefused(
            AttestationRefusal.CERTIFICATE_NOT_VALID_NOW,
            f"{name} is valid from {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}; this device's clock says "
            f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        )


def _verify_signature(leaf: x509.Certificate, read: NitroDocument) -> None:
    """ES384 over the Sig_structure of RFC 9052, section 4.4."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationRefused(
            AttestationRefusal.WRONG_ALGORITHM, "the certificate's key is not of curve P-384"
        )
    half = SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part, "big") for part in (read.signature[:half], read.signature[half:]))
    signed = encode_cbor(["Signature1", read.protected, b"", read.payload])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise AttestationRefused(
            AttestationRefusal.BAD_SIGNATURE,
            f"the signature is not the certificate's over this payload (SHA-256 "
            f"{hashlib.sha256(read.payload).hexdigest()})",
        ) from error
