"""Files over presigned URLs: HTTP PUT and bounded GET. A URL is a secret, so none is ever said."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from android_bench.devices.base import DeviceUnavailable

Given = TypeVar("Given")

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
_TIMEOUT_S = 120.0
_CHUNK_BYTES = 256 * 1024
_CONTENT_TYPE = "application/octet-stream"


class TransferFailed(DeviceUnavailable):
    """A file could not be sent to AWS, or fetched from there."""

    code = "FLN-2566"


def put_file(url: str, path: Path) -> None:
    """Send a file to a presigned URL; tried again while the other side is in trouble.

    Raises:
        TransferFailed: If it is not taken. The URL is not in the sentence.
    """

    def send() -> None:
        with path.open("rb") as file:
            request = urllib.request.Request(url, data=file, method="PUT")  # noqa: S310 - see _checked
            request.add_header("Content-Type", _CONTENT_TYPE)
            request.add_header("Content-Length", str(path.stat().st_size))
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                return

    _checked(url, path.name)
    _again(send, f"cannot send {path.name} to AWS")


def get_bytes(url: str, max_bytes: int, what: str) -> bytes:
    """Fetch a presigned URL.

    Args:
        what: What it is, for the sentence.

    Raises:
        TransferFailed: If it is not given, or is longer than ``max_bytes``.
    """

    def fetch() -> bytes:
        data = bytearray()
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            while len(data) <= max_bytes:
                chunk = answer.read(min(_CHUNK_BYTES, max_bytes + 1 - len(data)))
                if not chunk:
                    break
                data += chunk
            if answer.length:  # bytes that were promised and have not come
                if len(data) > max_bytes:
                    return bytes(data)
                raise http.client.IncompleteRead(bytes(data), answer.length)
        return bytes(data)

    _checked(url, what)
    found = _again(fetch, f"cannot fetch {what} from AWS")
    if len(found) > max_bytes:
        raise TransferFailed(
            f"{what} is longer than {max_bytes} bytes and was not read to its end; see what the "
            "app writes to its log folder"
        )
    return found


def _checked(url: str, what: str) -> None:
    if urlsplit(url).scheme not in {"https", "http"}:
        raise TransferFailed(f"AWS gave an address for {what} that is not HTTP; try again later")


def _again(call: Callable[[], Given], complaint: str) -> Given:
    wait_s = _FIRST_WAIT_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return call()
        except urllib.error.HTTPError as error:
            error.close()
            why, is_passing = f"HTTP {error.code}", error.code >= 500 or error.code == 429
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            why, is_passing = str(reason), True
        if attempt == _ATTEMPTS or not is_passing:
            raise TransferFailed(
                f"{complaint} ({why}, {attempt} attempt(s)); run again, work begun is taken up"
            )
        time.sleep(wait_s)
        wait_s *= 2
    raise RuntimeError("unreachable")
