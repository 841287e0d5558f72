"""Failpoints: named places where a test or a benchmark has a server process killed.

Off unless ``FLINT_FAILPOINT_FILE`` names a file when the process starts; then a pass costs a look
for that file, otherwise a comparison. Arm it while the server runs by writing ``name:nth`` there:
the nth pass of that place, counted over all processes, removes the file and ends its process with
SIGKILL, as a power cut would; nothing is flushed and no handler runs. A process that is started
again goes on, for the file is gone.

In this package, not beside the supervisor, because the model store has such places too.
"""

import os
import signal
from pathlib import Path

FAILPOINT_VARIABLE = "FLINT_FAILPOINT_FILE"

FAILPOINTS = (
    "version_to_be_stored",  # coordinator: the sums are added up, nothing is stored
    "version_blob_written",  # coordinator: its bytes are in the blob store, its row is not
    "version_row_committed",  # coordinator: stored, and nobody has been told
    "release_to_be_asked",  # coordinator: decided to aggregate, no gateway knows
    "release_answered",  # coordinator: it has every gateway's sums
    "commit_to_be_sent",  # coordinator: the gateways still hold what is stored
    "commit_sent",  # coordinator: commits handed to the streams
    "update_folded",  # gateway: in a sum, and only the aggregator knows
    "update_accepted",  # gateway: counted, and its device has not been told
    "progress_to_be_sent",  # gateway: the coordinator has not been told
    "aggregator_frozen",  # gateway: sums frozen for a release, and not given yet
)

_armed_by = os.environ.get(FAILPOINT_VARIABLE)


def failpoint(name: str) -> None:
    """End this process here, if a test has armed this place."""
    if _armed_by is not None:
        _pass(Path(_armed_by), name)


def arm(path: Path, name: str, nth: int = 1) -> None:
    """Have the ``nth`` pass of a place end its process.

    Args:
        path: What ``FLINT_FAILPOINT_FILE`` names.

    Raises:
        ValueError: If there is no such place or pass.
    """
    if name not in FAILPOINTS or nth < 1:
        raise ValueError(f"there is no pass {nth} of a failpoint {name!r}")
    draft = path.with_name(path.name + ".new")
    draft.write_text(f"{name}:{nth}")
    draft.replace(path)


def _pass(path: Path, name: str) -> None:
    try:
        armed, _, nth = path.read_text().partition(":")
    except FileNotFoundError:
        return
    if armed != name:
        return
    if int(nth) > 1:
        arm(path, name, int(nth) - 1)
        return
    claimed = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(claimed)
    except FileNotFoundError:
        return  # another process passed at the same moment, and ends
    claimed.unlink()
    os.kill(os.getpid(), signal.SIGKILL)
