"""What ``am instrument -w -r`` prints: where the app's result lies, or why there is none.

Lines are ``INSTRUMENTATION_STATUS: key=value``, ``INSTRUMENTATION_RESULT: key=value``,
``INSTRUMENTATION_CODE: n`` and ``INSTRUMENTATION_FAILED: component``; a value may go on over
further lines.
"""

import re
from dataclasses import dataclass

RESULT_KEY = "flint_bench_json"
"""The app's answer under this key is a path on the device, not the result itself."""

_LINE = re.compile(r"INSTRUMENTATION_(STATUS|RESULT): ([^=]{1,200})=(.*)")
_PATH = re.compile(r"/[A-Za-z0-9._+@/-]{1,400}")
_OK = "-1"  # Activity.RESULT_OK


@dataclass(frozen=True, slots=True)
class InstrumentationOutcome:
    """How an instrumentation ended.

    Attributes:
        result_path: Of the result file on the device; None if there is none.
        complaint: Why there is none, in words; empty if there is one.
    """

    result_path: str | None
    complaint: str


def read_instrumentation(output: str) -> InstrumentationOutcome:
    """Read the output of ``am instrument -w -r``, whatever it is."""
    values: dict[str, str] = {}
    code = failed = ""
    for raw in output.splitlines():
        line = raw.strip()
        found = _LINE.fullmatch(line)
        if found:
            values[found[2]] = found[3]
        elif line.startswith("INSTRUMENTATION_CODE: "):
            code = line.removeprefix("INSTRUMENTATION_CODE: ")
        elif line.startswith("INSTRUMENTATION_FAILED: "):
            failed = line.removeprefix("INSTRUMENTATION_FAILED: ")
    path = values.get(RESULT_KEY)
    complaint = _complaint(values, code, failed)
    if not complaint and (path is None or not _PATH.fullmatch(path) or ".." in path.split("/")):
        complaint = f"the app gave {path!r} as {RESULT_KEY}, which is no plain absolute path"
    if complaint:
        return InstrumentationOutcome(None, complaint[:400])
    return InstrumentationOutcome(path, "")


def _complaint(values: dict[str, str], code: str, failed: str) -> str:
    """What went wrong, the most telling first; empty if nothing did."""
    crash = values.get("longMsg") or values.get("shortMsg", "")
    if failed:
        why = values.get("Error", "")
        return f"the device cannot start {failed}{f' ({why})' if why else ''}"
    if crash:
        return f"the app crashed ({crash})"
    if not code:
        return "the app ended without a word; its process may have been killed for memory"
    said = (values.get("stack") or values.get("stream", "")).strip()[:200]
    told = f" ({said})" if said else ""
    if code != _OK:
        return f"the instrumentation ended with code {code}{told}"
    return "" if RESULT_KEY in values else f"the app gave no {RESULT_KEY}{told}"
