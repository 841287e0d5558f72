"""What a transform needs besides its parameters: vocabularies and embedding tables.

Both are files known by the SHA-256 of their bytes. A vocabulary is UTF-8 text, a token a line, each
line ended by one line feed; a token's id is its line's number, from 0. An embedding table is a
``.npy`` file (version 1.0) of little-endian float32, shape ``(rows, dimensions)``, in C order.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

MAX_ASSET_BYTES = 256 * 2**20
_NPY_MAGIC = b"\x93NUMPY\x01\x00"


class InvalidAsset(FlintError):
    """A vocabulary or embedding table that is damaged, or not there."""

    code = "FLN-2852"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens in the order of their ids.

    Attributes:
        sha256: Digest of its file.
    """

    tokens: tuple[str, ...]
    sha256: bytes

    @classmethod
    def of(cls, tokens: tuple[str, ...]) -> Self:
        """Make one from its tokens.

        Raises:
            InvalidAsset: If a token is empty, holds a line feed, or comes twice.
        """
        return cls.from_bytes("".join(f"{token}\n" for token in tokens).encode())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a vocabulary file.

        Raises:
            InvalidAsset: If it is not one.
        """
        try:
            text = _bounded(content).decode()
        except UnicodeDecodeError as error:
            raise InvalidAsset(
                f"the vocabulary is not UTF-8 ({error.reason} at byte {error.start}); build it anew"
            ) from error
        if text and not text.endswith("\n"):
            raise InvalidAsset("the vocabulary's last line has no end; build or fetch it anew")
        tokens = tuple(text.split("\n")[:-1])
        if not tokens or "" in tokens:
            raise InvalidAsset("the vocabulary is empty or has an empty line; build it anew")
        if len(set(tokens)) != len(tokens):
            raise InvalidAsset("the vocabulary names a token twice; build it anew")
        return cls(tokens, hashlib.sha256(content).digest())

    def to_bytes(self) -> bytes:
        """Its file."""
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each token's id."""
        return {token: number for number, token in enumerate(self.tokens)}


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingTable:
    """One row of numbers an index.

    Attributes:
        table: float32, shape ``(rows, dimensions)``, finite.
        sha256: Digest of its file.
    """

    table: NDArray[np.float32]
    sha256: bytes

    @classmethod
    def of(cls, table: NDArray[np.float32]) -> Self:
        """Make one from its numbers.

        Raises:
            InvalidAsset: If they are not finite, or not a table.
        """
        return cls.from_bytes(_npy(table))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a table's file.

        Raises:
            InvalidAsset: If it is not one.
        """
        _bounded(content)
        if content[:8] != _NPY_MAGIC or len(content) < 10:
            raise InvalidAsset("the embedding table is not a .npy file of version 1.0")
        (header_bytes,) = struct.unpack_from("<H", content, 8)
        rows, dimensions = _shape_in(content[10 : 10 + header_bytes])
        body = content[10 + header_bytes :]
        if len(body) != rows * dimensions * 4:
            raise InvalidAsset(
                f"the embedding table says {rows} x {dimensions} numbers but holds {len(body)} "
                "bytes; fetch it anew"
            )
        table = np.frombuffer(body, "<f4").reshape(rows, dimensions)
        if not np.isfinite(table).all():
            raise InvalidAsset("the embedding table holds a number that is not finite")
        return cls(table, hashlib.sha256(content).digest())

    def to_bytes(self) -> bytes:
        """Its file."""
        return _npy(self.table)


Asset = Vocabulary | EmbeddingTable
Assets = Mapping[str, Asset]
"""What transforms find by an asset's name."""


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_ASSET_BYTES:
        raise InvalidAsset(
            f"the asset has {len(content)} bytes, more than the {MAX_ASSET_BYTES} a device reads"
        )
    return content


def _npy(table: NDArray[np.float32]) -> bytes:
    if table.ndim != 2 or table.dtype != np.float32 or not table.size:
        raise InvalidAsset(
            f"an embedding table is float32 of two dimensions, not {table.dtype}{table.shape}"
        )
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {table.shape}, }}"
    padding = -(10 + len(shape) + 1) % 64
    header = f"{shape}{' ' * padding}\n".encode()
    return _NPY_MAGIC + struct.pack("<H", len(header)) + header + table.astype("<f4").tobytes()


def _shape_in(header: bytes) -> tuple[int, int]:
    """Read the one header there may be, without evaluating anything."""
    start, end = b"{'descr': '<f4', 'fortran_order': False, 'shape': (", b"), }"
    text = header.rstrip(b" \n")
    parts = text.removeprefix(start).removesuffix(end).split(b", ")
    is_form = text.startswith(start) and text.endswith(end) and len(parts) == 2
    if not is_form or not all(part.isdigit() and len(part) < 12 for part in parts):
        raise InvalidAsset("the embedding table is not float32 of two dimensions in C order")
    return int(parts[0]), int(parts[1])
