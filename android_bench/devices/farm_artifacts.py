"""Zips to and from a device farm: what devices are sent, and the one file looked for in what comes.

Nothing of a zip that comes back is written to disk, so its paths lead nowhere, and no more of it is
unpacked than a result may have.
"""

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from android_bench.package import BenchPackage
from android_bench.protocol import MAX_RESULT_BYTES, SPEC_FILE, BenchSpec

RESULT_NAME = "flint-bench-result.json"
"""As the test spec leaves it in the log folder."""

MAX_ZIP_BYTES = 256 * 2**20
_MAX_ENTRIES = 10_000
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


class NoResultInside(Exception):
    """A zip without a result that could be read; the message says why, in words."""


def zip_package(spec: BenchSpec, package: BenchPackage, target: Path) -> Path:
    """Pack what a device is sent; the same files give the same bytes."""
    with zipfile.ZipFile(target, "w") as packed:
        for path in package.paths:
            entry = zipfile.ZipInfo(path.name, _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, path.read_bytes())
        packed.writestr(zipfile.ZipInfo(SPEC_FILE, _FIXED_TIME), spec.to_json())
    return target


def result_inside(data: bytes) -> bytes:
    """The result file in a zip of customer artefacts, not yet parsed.

    Raises:
        NoResultInside: If there is none or more than one, the zip is damaged, or the file would
            unpack to more than a result may have.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            entries = packed.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise NoResultInside(f"its artefacts are {len(entries)} files")
            named = [e for e in entries if PurePosixPath(e.filename).name == RESULT_NAME]
            if len(named) != 1:
                raise NoResultInside(
                    f"its artefacts hold {len(named) or 'no'} {RESULT_NAME}: the app crashed, or "
                    "never wrote one"
                )
            with packed.open(named[0]) as file:
                found = file.read(MAX_RESULT_BYTES + 1)  # whatever its header says
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        raise NoResultInside(f"its artefacts are no zip that can be read ({error})") from error
    if len(found) > MAX_RESULT_BYTES:
        raise NoResultInside(f"its result is longer than {MAX_RESULT_BYTES} bytes")
    return found
