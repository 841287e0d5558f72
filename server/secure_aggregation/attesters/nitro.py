"""AWS Nitro Enclaves: the hypervisor vouches for the enclave, asked through ``/dev/nsm``.

The Nitro security module answers CBOR requests carried by one ioctl (the interface of
github.com/aws/aws-nitro-enclaves-nsm-api, ``src/api`` and ``src/driver``). Requests and answers are
tested against a module of the same interface made by a test CA; **not run on Nitro hardware**.
"""

import ctypes
import errno
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

from device_runtime.attestation_nitro import MEASURED_REGISTERS, PROVIDER, registers_measurement
from device_runtime.bounded_cbor import UnfitCbor, decode_cbor, encode_cbor
from device_runtime.errors import FlintError
from device_runtime.nitro_document import REGISTER_BYTES

DEVICE = Path("/dev/nsm")

_MOST_REQUEST_BYTES = 0x1000
_MOST_RESPONSE_BYTES = 0x3000
_MAGIC = 0x0A


class NoSecurityModule(FlintError):
    """This is no Nitro Enclave, or one without access to its security module."""

    code = "FLN-1811"


class SecurityModuleFault(FlintError):
    """The security module answered with an error, or with no answer."""

    code = "FLN-1812"


SecurityModule = Callable[[bytes], bytes]
"""CBOR request to CBOR response."""


class NitroAttester:
    """Has the hypervisor measure and vouch: nothing this process says of itself counts."""

    provider = PROVIDER

    def __init__(self, module: SecurityModule) -> None:
        """Raises `SecurityModuleFault` if the module does not tell the measured registers."""
        self._module = module
        self._measurement = registers_measurement(
            {index: self._register(index) for index in MEASURED_REGISTERS}
        )

    @property
    def measurement(self) -> bytes:
        """See `Attester.measurement`: of PCR0, PCR1 and PCR2."""
        return self._measurement

    def document(self, nonce: bytes, user_data: bytes) -> bytes:
        """See `Attester.document`."""
        answer = self._ask(
            "Attestation", {"user_data": user_data, "nonce": nonce, "public_key": None}
        )
        document = answer.get("document")
        if not isinstance(document, bytes) or not document:
            raise SecurityModuleFault("the Nitro security module's answer holds no document")
        return document

    def _register(self, index: int) -> bytes:
        register = self._ask("DescribePCR", {"index": index}).get("data")
        if not isinstance(register, bytes) or len(register) != REGISTER_BYTES:
            raise SecurityModuleFault(
                f"the Nitro security module gives no PCR{index} of {REGISTER_BYTES} bytes"
            )
        return register

    def _ask(self, operation: str, arguments: Mapping[str, object]) -> dict[str, object]:
        request = encode_cbor({operation: dict(arguments)})
        if len(request) > _MOST_REQUEST_BYTES:
            raise SecurityModuleFault(
                f"{operation} takes {len(request)} bytes; a request has at most "
                f"{_MOST_REQUEST_BYTES}"
            )
        try:
            response = decode_cbor(self._module(request), most_items=64, most_depth=4)
        except UnfitCbor as error:
            raise SecurityModuleFault(
                f"the Nitro security module's answer to {operation} cannot be read: {error}"
            ) from error
        if not isinstance(response, dict) or not isinstance(response.get(operation), dict):
            said = response.get("Error") if isinstance(response, dict) else None
            raise SecurityModuleFault(
                f"the Nitro security module refused {operation}: {said or 'no such answer'}"
            )
        return dict(response[operation])


class _Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """What the driver's ioctl takes: where the request is, and where its response goes."""

    _fields_ = (("request", _Vector), ("response", _Vector))


_REQUEST_CODE = (3 << 30) | (ctypes.sizeof(_Message) << 16) | (_MAGIC << 8)
"""``_IOWR(0x0A, 0, struct nsm_message)``."""


class DeviceSecurityModule:
    """The security module behind a character device, kept open."""

    def __init__(self, path: Path = DEVICE) -> None:
        """Raises `NoSecurityModule` if the device cannot be opened."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NoSecurityModule(
                f"{path}: {error.strerror}: a Nitro security module is inside AWS Nitro Enclaves "
                f"only; software_root attests elsewhere, without confidentiality from root"
            ) from error
        weakref.finalize(self, os.close, self._descriptor)

    def __call__(self, request: bytes) -> bytes:
        """One exchange; the driver writes how long its answer is into the message."""
        import fcntl

        asked = ctypes.create_string_buffer(request, len(request))
        answer = ctypes.create_string_buffer(_MOST_RESPONSE_BYTES)
        message = _Message(
            _Vector(ctypes.addressof(asked), len(request)),
            _Vector(ctypes.addressof(answer), _MOST_RESPONSE_BYTES),
        )
        try:
            fcntl.ioctl(self._descriptor, _REQUEST_CODE, message)
        except OSError as error:
            too_large = error.errno == errno.EMSGSIZE
            raise SecurityModuleFault(
                f"the Nitro security module took no request of {len(request)} bytes: "
                f"{'InputTooLarge' if too_large else error.strerror}"
            ) from error
        return answer.raw[: min(message.response.length, _MOST_RESPONSE_BYTES)]


def open_security_module(path: Path = DEVICE) -> SecurityModule:
    """Open the security module of this enclave.

    Raises:
        NoSecurityModule: If there is none.
    """
    return DeviceSecurityModule(path)
