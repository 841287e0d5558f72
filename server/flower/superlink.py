"""How Flower's SuperLink is run: command line and environment. Imports nothing of flwr."""

import json
import secrets
import ssl
import sys
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from device_runtime.errors import FlintError
from server.operations.ports import join_address, split_address
from server.operations.settings import ServerSettings

PINNED_FLWR = "1.41.0"

_SUPEREXEC_SECRET_BYTES = 32
_PROBE_TIMEOUT_S = 1.0


class WrongFlowerVersion(FlintError):
    """The installed flwr is not the one this adapter was measured with."""

    code = "FLN-1601"


def check_flower_version() -> None:
    """Refuse to work with any flwr but the pinned one.

    Raises:
        WrongFlowerVersion: If another version is installed, or none.
    """
    try:
        found = version("flwr")
    except PackageNotFoundError:
        found = "none"
    if found != PINNED_FLWR:
        raise WrongFlowerVersion(
            f"flwr {PINNED_FLWR} is needed and {found} is installed: FLINT drives parts of Flower "
            f"that change between versions; install it with `pip install flwr=={PINNED_FLWR}`"
        )


def superexec_secret_path(settings: ServerSettings) -> Path:
    """Secret without which nobody may take a ServerApp task from our SuperLink."""
    return settings.secrets / "superexec.key"


def ensure_superexec_secret(settings: ServerSettings) -> bytes:
    """Read the secret shared by SuperLink and coordinator; make it at the first call."""
    path = superexec_secret_path(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(_SUPEREXEC_SECRET_BYTES))
    return path.read_bytes()


def superlink_command(settings: ServerSettings) -> tuple[str, ...]:
    """Command line of `flower-superlink`.

    State is a SQLite file, so that runs outlive a restart; measured, that costs two thirds of the
    message rate of the in-memory state, which plain SuperNodes (one message per 5 s each) do not
    come near. With ``--isolation process`` no one but our coordinator runs ServerApps, and taking
    one needs the shared secret.

    Raises:
        WrongFlowerVersion: See `check_flower_version`.
    """
    check_flower_version()
    ensure_superexec_secret(settings)
    host, port = split_address(settings.superlink_address)
    entry = "from flwr.superlink.cli.flower_superlink import flower_superlink as main; main()"
    command = [sys.executable, "-P", "-c", entry, "--host", host, "--port", str(port)]
    command += ["--isolation", "process", "--disable-runtime-dependency-installation"]
    command += ["--database", str(settings.home / "superlink.sqlite")]
    command += ["--superexec-auth-secret-file", str(superexec_secret_path(settings))]
    if settings.insecure:
        return (*command, "--insecure")
    return (
        *command,
        f"--ssl-ca-certfile={settings.ca_certificate}",
        f"--ssl-certfile={settings.certificate('superlink')}",
        f"--ssl-keyfile={settings.private_key('superlink')}",
    )


def superlink_environment(settings: ServerSettings) -> dict[str, str]:
    """Environment of SuperLink: no telemetry, no update check, warnings only in its log."""
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "FLWR_HOME": str(settings.home / "flower"),
        "NO_COLOR": "1",
    }


def superlink_answers(settings: ServerSettings) -> bool:
    """Whether SuperLink serves, asked over the network as any client would."""
    scheme = "http" if settings.insecure else "https"
    url = f"{scheme}://{dial_address(settings)}/health"
    context = None
    if not settings.insecure:
        context = ssl.create_default_context(cafile=str(settings.ca_certificate))
    try:
        with urllib.request.urlopen(  # noqa: S310 - the address is the deployment's own
            url, timeout=_PROBE_TIMEOUT_S, context=context
        ) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def write_flower_configuration(settings: ServerSettings) -> Path:
    """Write the file by which `flwr list`, `flwr log` and `flwr stop` find our SuperLink.

    They read it when ``FLWR_HOME`` is ``<home>/flower``; the connection is named ``flint``.
    """
    path = settings.home / "flower" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    trust = "insecure = true"
    if not settings.insecure:
        trust = f"root-certificates = {_toml_string(str(settings.ca_certificate))}"
    address = _toml_string(dial_address(settings))
    path.write_text(
        f'[superlink]\ndefault = "flint"\n\n[superlink.flint]\naddress = {address}\n{trust}\n'
    )
    return path


def dial_address(settings: ServerSettings) -> str:
    """SuperLink's address as processes on this machine dial it."""
    host, port = split_address(settings.superlink_address)
    return join_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104


def _toml_string(text: str) -> str:
    return json.dumps(text)  # a JSON string is a TOML basic string
