"""An asset's bytes as devices get them: in chunks, each compressed by itself."""

import functools
import zlib
from collections.abc import Collection, Iterator
from typing import Protocol

from device_runtime.protocol import features_pb2 as pb

CHUNK_BYTES = 2**20
ZLIB = "zlib"

_LEVEL = 6
_WORTH_IT = 0.95


class AssetBytes(Protocol):
    """A file to read parts of, from several threads at once."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset`` on."""
        ...


def asset_chunks(
    content: AssetBytes, offset: int, compressions: Collection[str]
) -> Iterator[pb.AssetChunk]:
    """An asset from an offset on.

    A device that was cut off goes on at the byte where it has come to: nothing of a chunk depends
    on those before it.

    Args:
        compressions: What the device reads besides plain bytes.
    """
    total = content.size
    start = offset
    while start < total:
        # Up to a multiple of the chunk's size: whoever comes then gets the very chunks others got.
        end = min(total, start - start % CHUNK_BYTES + CHUNK_BYTES)
        data = content.read(start, end - start)
        packed = _packed(data) if ZLIB in compressions else None
        if packed is None:
            yield pb.AssetChunk(data=data, total_bytes=total, size_bytes=len(data))
        else:
            yield pb.AssetChunk(
                data=packed, total_bytes=total, size_bytes=len(data), compression=ZLIB
            )
        start = end
    if offset == total:
        yield pb.AssetChunk(total_bytes=total)


@functools.lru_cache(maxsize=32)
def _packed(data: bytes) -> bytes | None:
    """A chunk compressed, once for all who fetch it; None where that is no use."""
    packed = zlib.compress(data, _LEVEL)
    return packed if len(packed) < len(data) * _WORTH_IT else None
