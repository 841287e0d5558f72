"""TLS servers that take up a renewed certificate: for new connections, while old ones go on."""

import logging
import threading
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from server.operations.settings import ServerSettings

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


def live_server_credentials(
    settings: ServerSettings, role: str, *, require_client_certificate: bool = False
) -> grpc.ServerCredentials:
    """Credentials of a gRPC server that looks at its role's files for every new connection.

    That look is three calls of ``stat``; files are read when they have changed. A certificate that
    does not fit its key, as between the writing of the two, is not taken up.

    Args:
        require_client_certificate: Only clients with a certificate of the deployment's CA are let
            in.

    Raises:
        OSError: If a file cannot be read now.
    """
    files = _CertificateFiles(settings, role, trusts_clients=require_client_certificate)
    return grpc.dynamic_ssl_server_credentials(
        files.first(),
        files.when_changed,  # type: ignore[arg-type] # the stubs do not know of None: no change
        require_client_authentication=require_client_certificate,
    )


class _CertificateFiles:
    """The files of one role, asked by gRPC from threads of its own."""

    def __init__(self, settings: ServerSettings, role: str, *, trusts_clients: bool) -> None:
        self._role = role
        self._key, self._certificate = settings.private_key(role), settings.certificate(role)
        self._ca = settings.ca_certificate if trusts_clients else None
        self._lock = threading.Lock()
        self._taken: _Stamp = ()

    def first(self) -> grpc.ServerCertificateConfiguration:
        """What to begin with.

        Raises:
            OSError: If a file cannot be read.
        """
        with self._lock:
            self._taken = self._stamp()
            return self._configuration(self._key.read_bytes(), self._certificate.read_bytes())

    def when_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to go on with, or None for what there is."""
        try:
            stamp = self._stamp()
            with self._lock:
                if stamp == self._taken:
                    return None
                key, certificate = self._key.read_bytes(), self._certificate.read_bytes()
                if not _fit(key, certificate):
                    return None
                configuration = self._configuration(key, certificate)
                self._taken = stamp
        except (OSError, ValueError) as error:
            log.warning("the %s's new certificate cannot be read: %s", self._role, error)
            return None
        log.info("new connections are served with the %s's renewed certificate", self._role)
        return configuration

    def _configuration(
        self, key_pem: bytes, certificate_pem: bytes
    ) -> grpc.ServerCertificateConfiguration:
        trusted = None if self._ca is None else self._ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([(key_pem, certificate_pem)], trusted)

    def _stamp(self) -> _Stamp:
        files = [self._key, self._certificate] + ([] if self._ca is None else [self._ca])
        return tuple(_identity(file) for file in files)


def _identity(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _fit(key_pem: bytes, certificate_pem: bytes) -> bool:
    """Whether a certificate is of a key.

    Raises:
        ValueError: If one of them is none at all.
    """
    key = serialization.load_pem_private_key(key_pem, password=None)
    return key.public_key() == x509.load_pem_x509_certificate(certificate_pem).public_key()
