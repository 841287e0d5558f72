"""Flower's Control API: start, find and stop runs. Part of the pinned adapter.

Flower's own retrying is not used: it ends the calling process (a refused token raises SIGINT) or
waits without limit.
"""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.run_pb2 import Run
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab

from device_runtime.errors import FlintError
from server.flower.node_messages import RunEnded, SuperLinkBusy
from server.flower.superlink import check_flower_version, dial_address
from server.operations.settings import ServerSettings

_RETRY_S = 0.25
_PATIENCE_S = 10.0
_MAX_NAME = 32
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_APP_FILES = ("__init__.py", "client_app.py", "server_app.py")

logging.getLogger("httpx").setLevel(logging.WARNING)  # it notes every request

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


class SuperLinkUnreachable(FlintError):
    """SuperLink does not answer."""

    code = "FLN-1602"


class FlowerRefused(FlintError):
    """SuperLink answered, and refused."""

    code = "FLN-1603"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as `flwr list` shows it.

    Attributes:
        status: ``pending``, ``starting``, ``running`` or ``finished``.
        sub_status: Of a finished run: ``completed``, ``failed`` or ``stopped``.
    """

    status: str
    sub_status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.status == Status.FINISHED

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it."""
        return self.finished and self.sub_status == SubStatus.STOPPED


def submit_run(settings: ServerSettings, job_name: str, patience_s: float = _PATIENCE_S) -> int:
    """Start a Flower run for a job; it is pending until a coordinator takes it. Returns its id.

    Args:
        patience_s: How long to wait for a SuperLink that does not answer.

    Raises:
        SuperLinkUnreachable, FlowerRefused, WrongFlowerVersion: See there.
    """
    bundle = _bundle(job_name)
    fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
    request = StartRunRequest(fab=fab_to_proto(fab), federation=NOOP_FEDERATION_ID)
    with _control(settings) as control:
        answer = ask(settings, control.StartRun, request, patience_s)
    if not answer.run_id:
        raise FlowerRefused(f"SuperLink did not start a run for job {job_name}; see its log")
    return int(answer.run_id)


def run_status(settings: ServerSettings, run_id: int) -> RunStatus | None:
    """Status of a run; None when SuperLink knows no such run.

    Raises:
        SuperLinkUnreachable, FlowerRefused, WrongFlowerVersion: See there.
    """
    run = find_run(settings, run_id)
    if run is None:
        return None
    return RunStatus(run.status.status, run.status.sub_status, run.status.details)


def stop_run(settings: ServerSettings, run_id: int) -> bool:
    """End a run; False when it is over already or unknown.

    Raises:
        SuperLinkUnreachable, FlowerRefused, WrongFlowerVersion: See there.
    """
    status = run_status(settings, run_id)
    if status is None or status.finished:
        return False
    with _control(settings) as control:
        request = StopRunRequest(run_id=run_id)
        return bool(ask(settings, control.StopRun, request, _PATIENCE_S).success)


def find_run(settings: ServerSettings, run_id: int, patience_s: float = _PATIENCE_S) -> Run | None:
    """A run as SuperLink knows it; None when it knows none of that id."""
    request = ListRunsRequest(run_id=run_id)
    with _control(settings) as control:
        try:
            answer = ask(settings, control.ListRuns, request, patience_s)
        except FlowerRefused as error:
            if _is_unknown_run(error):
                return None
            raise
    return answer.run_dict.get(run_id)


def call(method: Callable[[_Request], _Answer], request: _Request) -> _Answer:
    """One call under a task's token, made once.

    Raises:
        RunEnded: If SuperLink refuses the token: the task is over.
        SuperLinkBusy: If there is no answer, or none of use.
    """
    try:
        return method(request)
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise RunEnded(_detail(error)) from error
        raise SuperLinkBusy(_detail(error)) from error
    except httpx.TransportError as error:
        raise SuperLinkBusy(f"{type(error).__name__}: {error}") from error


def ask(
    settings: ServerSettings,
    method: Callable[[_Request], _Answer],
    request: _Request,
    patience_s: float,
) -> _Answer:
    """One call, made again while nobody listens or SuperLink is starting.

    Raises:
        SuperLinkUnreachable: If that lasts for ``patience_s``, or an answer does not come.
        FlowerRefused: If the answer is an error.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _TRANSIENT:
                raise FlowerRefused(f"SuperLink refused: {_detail(error)}") from error
            problem: Exception = error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            problem = error
        except httpx.TransportError as error:
            raise _unreachable(settings, error) from error
        if time.monotonic() > deadline_s:
            raise _unreachable(settings, problem) from problem
        time.sleep(_RETRY_S)


def root_certificates(settings: ServerSettings) -> bytes | None:
    """What to trust when dialling SuperLink; None without TLS."""
    return None if settings.insecure else settings.ca_certificate.read_bytes()


@contextmanager
def _control(settings: ServerSettings) -> Iterator[ControlHttpClient]:
    check_flower_version()
    client = ControlHttpClient.from_server_address(
        dial_address(settings), settings.insecure, root_certificates(settings), interceptors=[]
    )
    try:
        yield client
    finally:
        client.close()


def _bundle(job_name: str) -> bytes:
    """The Flower App of one submission.

    No two are equal, so a run's task can be told from all others by the digest of its app.
    """
    source = files("server.flower") / "app"
    name = re.sub(r"[^a-z0-9]+", "-", job_name.lower())[:_MAX_NAME].strip("-")
    project = (source / "pyproject.toml").read_text()
    bundle: Mapping[str, bytes] = {
        "pyproject.toml": project.replace('"flint-job"', f'"{name}"').encode(),
        "submission.json": f'{{"number": "{secrets.token_hex(16)}"}}'.encode(),
        **{f"flint_app/{f}": (source / "flint_app" / f).read_bytes() for f in _APP_FILES},
    }
    content, _ = build_fab_from_files(bundle)
    return bytes(content)


def _detail(error: httpx.HTTPStatusError) -> str:
    known = FlowerError.from_json(error.response.text)
    if known is not None:
        return f"{known.message} (Flower code {int(known.code)})"
    return f"HTTP status {error.response.status_code}"


def _is_unknown_run(error: FlowerRefused) -> bool:
    cause = error.__cause__
    if not isinstance(cause, httpx.HTTPStatusError):
        return False
    known = FlowerError.from_json(cause.response.text)
    return known is not None and known.code == ApiErrorCode.RUN_ID_NOT_FOUND


def _unreachable(settings: ServerSettings, error: Exception) -> SuperLinkUnreachable:
    return SuperLinkUnreachable(
        f"Flower's SuperLink does not answer at {settings.superlink_address} "
        f"({type(error).__name__}); is `flint up` running?"
    )
