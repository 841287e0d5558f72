"""The software root: a key in a file vouches for the enclave, on this process's own word.

For development and tests: **no confidentiality from root on the host**, who can read the key and
the process. Each document says so, and so does the log.
"""

import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_runtime import attestation_software
from device_runtime.attestation_software import CONFIDENTIALITY, PROVIDER
from device_runtime.errors import FlintError

_MOST_FILE_BYTES = 4096
_log = logging.getLogger(__name__)


class UnusableSoftwareRoot(FlintError):
    """The root's key cannot be read or made, or others may read it too."""

    code = "FLN-1813"


class SoftwareRoot:
    """An Ed25519 key that devices trust to vouch for enclaves. It lies on this host."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self.private_key = private_key

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Load the key from its file; make both on first use, readable by the owner only.

        Raises:
            UnusableSoftwareRoot: If the file cannot be read or made, is no Ed25519 key in PEM, or
                may be read or written by others.
        """
        try:
            if not path.exists():
                _create(path)
            return cls(_load(path))
        except OSError as error:
            raise UnusableSoftwareRoot(f"{path}: {error.strerror or error}") from error

    @property
    def public_key(self) -> bytes:
        """32 bytes; in hex it is what an app pins as ``software_root.public_keys``."""
        return self.private_key.public_key().public_bytes_raw()


class SoftwareAttester:
    """Signs what `measurement.measure` found of this install."""

    provider = PROVIDER

    def __init__(
        self, root: SoftwareRoot, measurement: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock``: seconds since 1970."""
        self._root = root
        self._measurement = measurement
        self._clock = clock
        _log.warning(
            "attesting by a software root (public key %s): confidentiality: %s",
            root.public_key.hex(),
            CONFIDENTIALITY,
        )

    @property
    def measurement(self) -> bytes:
        """See `Attester.measurement`."""
        return self._measurement

    def document(self, nonce: bytes, user_data: bytes) -> bytes:
        """See `Attester.document`."""
        return attestation_software.sign_document(
            self._root.private_key,
            measurement=self._measurement,
            nonce=nonce,
            user_data=user_data,
            issued_at_s=self._clock(),
        )


def _create(path: Path) -> None:
    """Under another name first, so that nobody ever reads half a key; the first to be done wins."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    _log.warning("made a software root in %s: confidentiality: %s", path, CONFIDENTIALITY)


def _load(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        pem = file.read(_MOST_FILE_BYTES)
    if mode & 0o077:
        raise UnusableSoftwareRoot(f"{path} has mode {mode:04o}; others may use the key: chmod 600")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableSoftwareRoot(f"{path} is no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableSoftwareRoot(f"{path} is no Ed25519 key")
    return key
