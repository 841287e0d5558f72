"""Files of records that are all there: reading beyond the end of a mapped file is a bus error."""

from pathlib import Path

from device_runtime.errors import FlintError


class UnusableRecords(FlintError):
    """A file of records that is not there, or is shorter than it was."""

    code = "FLN-3056"


def require_bytes(path: Path, wanted: int) -> None:
    """Refuse a records file of less than so many bytes.

    Raises:
        UnusableRecords: Names the file, the bytes it should have and those it has.
    """
    mend = "put it back from a copy, or add its data set again"
    try:
        found = path.stat().st_size
    except OSError as error:
        raise UnusableRecords(
            f"the records file {path} of {wanted} bytes cannot be opened ({error.strerror}); {mend}"
        ) from error
    if found < wanted:
        raise UnusableRecords(
            f"the records file {path} is cut off: it has {found} of {wanted} bytes; {mend}"
        )
