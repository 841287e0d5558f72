"""Many device identities on this machine: each with the records of one client of a data set.

What stands in for a phone is real but for the phone: a key of its own, enrolment, TLS, an SQLite
store of its own records, LiteRT training, uploads. Only the process is shared with others.
"""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from device_runtime.errors import FlintError
from device_runtime.examples import SqliteExampleStore
from device_runtime.feature_tasks import ACTIVITY_FILE, FEATURES_FILE
from device_runtime.host import EXAMPLES_FILE
from device_runtime.imposed_conditions import (
    ImposedConditions,
    write_conditions,
    write_epoch,
)
from feature_catalog.datasets import Dataset
from feature_catalog.user_events import UserEvents
from flint.deployment import Deployment
from server.operations import launch
from server.operations.settings import ServerSettings

_FILL_THREADS = 8  # filling waits for the disk, not for the processor
_FILES_A_DEVICE = 8
_OTHER_FILES = 200
_TOKEN_VALID_S = 3600.0
_STOP_TIMEOUT_S = 15.0
_ENROL_TIMEOUT_S = 300.0
_POLL_S = 0.2
_LOG_TAIL_LINES = 5


class TooFewClients(FlintError):
    """More identities are asked for than the data set has training clients."""

    code = "FLN-1253"


class FleetNotEnrolled(FlintError):
    """Identities that should all begin together did not all enrol in time."""

    code = "FLN-1260"
    exit_code = 1


class FleetProcessEnded(FlintError):
    """A process of the fleet ended by itself."""

    code = "FLN-1254"
    exit_code = 1


@dataclass(frozen=True, slots=True)
class FleetProgress:
    """All processes of a fleet together, since they were started.

    Attributes:
        enrolled: Identities enrolled by these processes; those of an earlier run are not in it.
        in_flight: Identities with a task in hand.
        known: Identities a gateway knows, of this run or an earlier one.
        cpu_s: Processor time of the processes that run.
        counts: What happened in them, by name.
    """

    devices: int
    enrolled: int
    in_flight: int
    finished_tasks: int
    known: int = 0
    cpu_s: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)


def fill_stores(
    dataset: Dataset,
    folder: Path,
    count: int | None,
    on_filled: Callable[[int], None],
    events: UserEvents | None = None,
) -> int:
    """Give each identity a folder with the records of its client; returns how many there are.

    Identity ``i`` gets client ``i`` of the data set's training clients, in order of their ids. A
    store that is filled already is left, so that a fleet started again is the same fleet.

    Args:
        folder: Gets one sub-folder an identity.
        count: Identities; None for as many as there are training clients.
        on_filled: Told how many are done.
        events: Of a data set of a feature service (`DatasetCatalog.user_events`): identities get
            what their users did instead of records, and join the features themselves.

    Raises:
        TooFewClients: If there are fewer training clients than ``count``.
    """
    clients = dataset.clients()
    count = len(clients) if count is None else count
    if count > len(clients):
        row = dataset.row
        raise TooFewClients(
            f"{count} devices are asked for, but data set {row.name}@{row.version} has "
            f"{len(clients)} training clients, one for each device; ask for at most {len(clients)}"
        )

    def fill(number: int) -> None:
        home = device_folder(folder, number)
        if events is not None:
            if not (home / FEATURES_FILE).exists() and not (home / ACTIVITY_FILE).exists():
                first_row, records = dataset.train_first_rows, dataset.train_record_counts
                activity = events.activity(int(first_row[number]), int(records[number]))
                activity.write(home / ACTIVITY_FILE)
            return
        store = SqliteExampleStore(home / EXAMPLES_FILE)
        if store.count() == 0:
            store.fill(*dataset.records(clients[number]))

    with ThreadPoolExecutor(_FILL_THREADS) as pool:
        for done, _ in enumerate(pool.map(fill, range(count)), start=1):
            on_filled(done)
    return count


def device_folder(folder: Path, number: int) -> Path:
    """Folder of one identity; names sort by number."""
    return folder / f"{number:06d}"


def dataset_folder(settings: ServerSettings, dataset: Dataset) -> Path:
    """Where the identities of a data set's clients live."""
    return settings.home / "devices" / f"{dataset.row.name}@{dataset.row.version}"


class LocalFleet:
    """Processes that run identities ``0`` to ``count - 1`` of a folder.

    Args:
        processes: At least this many; more where one may not open files for its share.
        conditions: What each identity is imposed; nobody asks for work then before `begin`. None:
            all run as fast as the host, and begin at once.
        device_model: Told at enrolment; None: this machine's name.
        os_release: Told at enrolment, a month; None: this machine's, which is none.
    """

    def __init__(
        self,
        deployment: Deployment,
        folder: Path,
        count: int,
        *,
        processes: int = 2,
        conditions: Sequence[ImposedConditions] | None = None,
        device_model: str | None = None,
        os_release: str | None = None,
    ) -> None:
        told = {"--device-model": device_model, "--os-release": os_release}
        self._description = [w for key, text in told.items() if text for w in (key, text)]
        self._settings = deployment.settings
        self._folder = folder
        self._count = count
        self._shares = _shares(count, max(processes, _least_processes(count)))
        self._token_file = folder / ".enrolment-token"
        token = deployment.devices.create_enrolment_token(count, _TOKEN_VALID_S)
        _write_private(self._token_file, token)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._counts_before: Counter[str] = Counter()
        self._finished_before = 0
        self._conditions_file: Path | None = None
        if conditions is not None:
            self._conditions_file = folder / ".conditions.json"
            named = {device_folder(folder, i).name: c for i, c in enumerate(conditions[:count])}
            write_conditions(self._conditions_file, named)

    @property
    def processes(self) -> int:
        """How many processes it takes."""
        return len(self._shares)

    def __enter__(self) -> Self:
        """Start the processes. They die with this one, however it ends."""
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        self._epoch_file.unlink(missing_ok=True)
        for number in range(len(self._shares)):
            self._log(number).unlink(missing_ok=True)
            self._processes.append(self._start(number))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the processes: politely, then not."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._token_file.unlink(missing_ok=True)
        self._epoch_file.unlink(missing_ok=True)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, those that have ended too."""
        return tuple(process.pid for process in self._processes)

    def revive(self) -> int:
        """Start again the processes that have ended, as a phone starts an app again.

        Returns:
            How many. What they had counted stays in `progress`, but for their last second.
        """
        ended = [n for n, process in enumerate(self._processes) if process.poll() is not None]
        for number in ended:
            report = _last_report(self._reports(number))
            self._counts_before.update(report.get("counts", {}))
            self._finished_before += int(report.get("finished_tasks", 0))
            self._processes[number] = self._start(number)
        return len(ended)

    def wait_until_enrolled(self, timeout_s: float = _ENROL_TIMEOUT_S) -> None:
        """Wait until the gateway knows every identity.

        Raises:
            FleetNotEnrolled: If that takes longer than ``timeout_s``.
            FleetProcessEnded: See `check`.
        """
        deadline_s = time.monotonic() + timeout_s
        while (known := self.progress().known) < self._count:
            self.check()
            if time.monotonic() > deadline_s:
                raise FleetNotEnrolled(
                    f"only {known} of {self._count} devices enrolled in {timeout_s:.0f} s; the "
                    f"reason is in {self._log(0)} and {self._settings.logs / 'gateway.log'}"
                )
            time.sleep(_POLL_S)

    def begin(self, epoch_s: float | None = None) -> float:
        """Let identities under conditions ask for work, and let their windows count.

        Args:
            epoch_s: When windows begin to count, in unix seconds, past or to come; None: now.

        Returns:
            That moment.
        """
        epoch_s = time.time() if epoch_s is None else epoch_s
        write_epoch(self._epoch_file, epoch_s)
        return epoch_s

    def check(self) -> None:
        """Raise when a process has ended.

        Raises:
            FleetProcessEnded: With how, and the end of its log.
        """
        for number, process in enumerate(self._processes):
            code = process.poll()
            if code is not None:
                said = " / ".join(_tail(self._log(number))) or "it said nothing"
                raise FleetProcessEnded(
                    f"device process {number} ended with exit code {code}: {said}; "
                    f"its log is {self._log(number)}"
                )

    def progress(self) -> FleetProgress:
        """What the processes last reported."""
        reports = [_last_report(self._reports(n)) for n in range(len(self._shares))]
        counts = Counter(self._counts_before)
        for report in reports:
            counts.update(report.get("counts", {}))
        return FleetProgress(
            devices=self._count,
            enrolled=counts["enrolled"],
            in_flight=sum(int(r.get("in_flight", 0)) for r in reports),
            finished_tasks=self._finished_before
            + sum(int(r.get("finished_tasks", 0)) for r in reports),
            known=sum(int(r.get("enrolled", 0)) for r in reports),
            cpu_s=sum(float(r.get("cpu_s", 0.0)) for r in reports),
            counts=dict(counts),
        )

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        first, count = self._shares[number]
        command = [*self._command(), "--first", str(first), "--count", str(count)]
        with self._log(number).open("ab") as log, self._reports(number).open("wb") as reports:
            return subprocess.Popen(  # noqa: S603 - the command is our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=reports,
                stderr=log,
                process_group=0,  # Ctrl-C is for us, who stop them in order
                env={**os.environ, **_ONE_THREAD},
            )

    def _command(self) -> list[str]:
        settings = self._settings
        trust = ["--insecure"] if settings.insecure else ["--ca", str(settings.ca_certificate)]
        imposed: list[str] = []
        if self._conditions_file is not None:
            imposed = ["--conditions", str(self._conditions_file)]
            imposed += ["--epoch-file", str(self._epoch_file)]
        return [
            *(sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid())),
            *(sys.executable, "-P", "-m", "device_runtime.fleet_process"),
            *("--server", settings.gateway_address, *trust),
            *("--enrolment-token-file", str(self._token_file)),
            *("--devices", str(self._folder)),
            *("--cache", str(self._folder / ".cache")),
            *("--app-id", "flint.fleet", "--report-every-s", "1"),
            *self._description,
            *self._attestation_trust(),
            *imposed,
        ]

    def _attestation_trust(self) -> list[str]:
        path = self._settings.attestation_trust
        return ["--attestation-trust", str(path)] if path.exists() else []

    @property
    def _epoch_file(self) -> Path:
        return self._folder / ".epoch"

    def _log(self, number: int) -> Path:
        return self._settings.logs / f"fleet-{number}.log"

    def _reports(self, number: int) -> Path:
        return self._settings.logs / f"fleet-{number}.jsonl"


# Training is one thread a process; BLAS pools would only fight over the cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _shares(count: int, processes: int) -> list[tuple[int, int]]:
    """First identity and number of identities of each process."""
    processes = min(processes, count)
    bounds = [count * i // processes for i in range(processes + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(bounds)]


def _least_processes(count: int) -> int:
    """As many as it takes to stay within the limit of open files a process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return 1
    return -(-count * _FILES_A_DEVICE // max(1, hard - _OTHER_FILES))


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _last_report(path: Path) -> dict[str, Any]:
    """The newest whole line of a process's reports; empty before the first."""
    for line in reversed(_tail(path, lines=2)):
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:  # the end of the file while it is being written
            continue
        return report
    return {}


def _tail(path: Path, lines: int = _LOG_TAIL_LINES) -> Sequence[str]:
    if not path.exists():
        return ()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8_192))
        return file.read().decode(errors="replace").splitlines()[-lines:]
