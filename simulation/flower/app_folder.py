"""A Flower app's folder: what its pyproject.toml says, and both halves of the app, imported."""

import contextlib
import difflib
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import click
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.config import flatten_dict, get_project_config, parse_config_args
from flwr.serverapp import ServerApp
from flwr.serverapp.server_app import LoadServerAppError
from flwr.supercore.object_ref import load_app

from device_runtime.errors import FlintError

App = TypeVar("App", ServerApp, ClientApp)


class NotAFlowerApp(FlintError):
    """A folder whose pyproject.toml describes no Flower app, or that has none."""

    code = "FLN-1760"


class FlowerAppImportFailed(FlintError):
    """The app's ServerApp or ClientApp cannot be imported."""

    code = "FLN-1761"


class InvalidRunConfig(FlintError):
    """A key the app's run config does not have, or a value of another type."""

    code = "FLN-1762"


class UnsupportedFlowerApp(FlintError):
    """An app that works on a SuperLink, but not on a virtual clock."""

    code = "FLN-1764"


@dataclass(frozen=True)
class FlowerApp:
    """What a folder says of its app.

    Attributes:
        server: ``module:attribute`` of its ServerApp.
        client: ``module:attribute`` of its ClientApp.
        run_config: Defaults of the folder with the overrides of this run, flat.
    """

    folder: Path
    name: str
    version: str
    server: str
    client: str
    run_config: UserConfig


@dataclass(frozen=True)
class ImportedApp:
    """Both halves of an app."""

    server: ServerApp
    client: ClientApp


@dataclass
class _Before:
    """What importing an app changes in the process."""

    path: list[str] = field(default_factory=lambda: list(sys.path))
    modules: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))


def read_flower_app(folder: Path, overrides: Sequence[str] = ()) -> FlowerApp:
    """Read what a folder says of its Flower app; nothing of it is imported yet.

    Args:
        overrides: As ``flwr run --run-config`` takes them: ``key=value`` pairs, or one TOML file.

    Raises:
        NotAFlowerApp: If there is no usable pyproject.toml.
        InvalidRunConfig: If an override is not one of the app's keys.
        UnsupportedFlowerApp: If it is an agent app.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise NotAFlowerApp(
            f"there is no folder {folder}; give the one with the app's pyproject.toml"
        )
    try:
        config = get_project_config(folder)
    except FileNotFoundError as error:
        raise NotAFlowerApp(
            f"{folder} has no pyproject.toml; give the folder of a Flower app, as `flwr new` makes "
            "one"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        said = " ".join(str(error).replace("\n  -", ";").split()).replace(":;", ":", 1)
        raise NotAFlowerApp(
            f"{folder / 'pyproject.toml'} describes no Flower app: {said}; mend it as `flwr build` "
            "asks"
        ) from error
    app = config["tool"]["flwr"]["app"]
    components = app["components"]
    if "serverapp" not in components or "clientapp" not in components:
        raise UnsupportedFlowerApp(
            f"{folder.name} is an agent app, without ServerApp and ClientApp; only those train on "
            "devices, so give a folder with both"
        )
    return FlowerApp(
        folder,
        str(config["project"]["name"]),
        str(config["project"]["version"]),
        str(components["serverapp"]),
        str(components["clientapp"]),
        _run_config(flatten_dict(app.get("config", {})), overrides),
    )


def _run_config(defaults: UserConfig, overrides: Sequence[str]) -> UserConfig:
    try:
        given = parse_config_args(list(overrides))
    except (click.ClickException, ValueError, OSError) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise InvalidRunConfig(
            f"--run-config {' '.join(overrides)}: {' '.join(said.split()).rstrip('.')}; write "
            "key=value pairs, or the path of one TOML file"
        ) from error
    if overrides and not given:
        raise InvalidRunConfig(
            f"--run-config {' '.join(overrides)} sets nothing; write key=value pairs"
        )
    for key, value in given.items():
        if key not in defaults:
            raise InvalidRunConfig(f"--run-config: {_unknown_key(key, defaults)}")
        known = defaults[key]
        is_alike = type(value) is type(known) or (type(known) is float and type(value) is int)
        if not is_alike:
            raise InvalidRunConfig(
                f"--run-config: {key} = {value!r} is a {type(value).__name__}, but the app's "
                f"default {known!r} is a {type(known).__name__}; give one of that kind"
            )
    return {key: given.get(key, value) for key, value in defaults.items()}


def _unknown_key(key: str, known: Mapping[str, object]) -> str:
    if not known:
        return f"the app has no key {key}, nor any other; remove it"
    near = difflib.get_close_matches(key, known, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{key} is not a key of the app's run config{meant}; its keys are {', '.join(known)}"


@contextlib.contextmanager
def imported(app: FlowerApp) -> Iterator[ImportedApp]:
    """Import an app as Flower does; its modules are forgotten afterwards.

    So each trial of a run begins with the app as it is on disk, whatever an earlier one left in
    its global variables.

    Raises:
        FlowerAppImportFailed: If a component is not there or its import fails.
        UnsupportedFlowerApp: If the app is of the legacy kind, or its modules have names that are
            taken in this process.
    """
    before = _Before()
    try:
        server = _load(app, "serverapp", app.server, ServerApp)
        client = _load(app, "clientapp", app.client, ClientApp)
        if server._main is None:
            raise UnsupportedFlowerApp(
                f"{app.name}: its ServerApp has no @app.main() but Flower's legacy server_fn, "
                "which asks clients from threads in real time; move it to @app.main() and a "
                "strategy of flwr.serverapp.strategy"
            )
        yield ImportedApp(server, client)
    finally:
        _forget(app, before)


def _load(app: FlowerApp, component: str, reference: str, kind: type[App]) -> App:
    where = f"{app.name}: {component} = {reference!r}"
    top = reference.partition(":")[0].partition(".")[0]
    taken = sys.modules.get(top)
    if taken is not None and not _is_of(taken, app.folder):
        raise UnsupportedFlowerApp(
            f"{where}: a module {top} is loaded already, and is not the app's; rename the app's"
        )
    error_type = LoadServerAppError if kind is ServerApp else LoadClientAppError
    try:
        importlib.invalidate_caches()
        found = load_app(reference, error_type, app.folder)
    except (LoadServerAppError, LoadClientAppError) as error:
        said = str(error).split("\n", 1)[0]
        raise FlowerAppImportFailed(f"{where}: {said}; mend the pyproject.toml") from error
    except (Exception, SystemExit) as error:
        raise FlowerAppImportFailed(f"{where} cannot be imported: {told(error, app)}") from error
    if not isinstance(found, kind):
        raise FlowerAppImportFailed(
            f"{where} is a {type(found).__name__}, not a {kind.__name__}; mend the pyproject.toml"
        )
    return found


def told(error: BaseException, app: FlowerApp) -> str:
    """An error of an app in a clause: its kind, what it says, and the app's line it came from."""
    said = " ".join(str(error).split())
    kind = type(error).__name__
    clause = f"{kind}: {said}" if said else kind
    lines = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(app.folder)
    ]
    if isinstance(error, ModuleNotFoundError) and error.name:
        clause += f" (install the app's dependencies: pip install {app.folder})"
    if not lines:
        return clause
    return f"{clause} in {Path(lines[-1].filename).relative_to(app.folder)}:{lines[-1].lineno}"


def _is_of(module: ModuleType, folder: Path) -> bool:
    """Whether a module's file lies in a folder; a package without a file by its path."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    found = [Path(place) for place in places if place]
    return any(
        place.is_relative_to(folder) and "site-packages" not in place.relative_to(folder).parts
        for place in found
    )


def _forget(app: FlowerApp, before: _Before) -> None:
    for name, module in list(sys.modules.items()):
        if name not in before.modules and _is_of(module, app.folder):
            del sys.modules[name]
    sys.path[:] = before.path
    importlib.invalidate_caches()
