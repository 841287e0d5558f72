"""The enclaves of a deployment: how one is started, and what an app pins to verify it by."""

from device_runtime.attestation import AttestationTrust
from device_runtime.attestation_software import PROVIDER as SOFTWARE_ROOT
from server.aggregation.process import aggregator_socket
from server.operations.settings import ServerSettings
from server.secure_aggregation.attesters.software import SoftwareRoot

_ROOT_KEY = "software_root.key"


def enclave_command(settings: ServerSettings, number: int) -> tuple[str, ...]:
    """Module and arguments of the enclave of one gateway.

    Args:
        settings: Of the deployment.
        number: The gateway's, from 0.
    """
    return (
        "server.secure_aggregation",
        *("--socket", str(aggregator_socket(settings.home, number))),
        *("--provider", settings.attestation),
        *("--secrets", str(settings.secrets)),
    )


def write_attestation_trust(settings: ServerSettings) -> None:
    """Write what an app pins, where a software root vouches; hardware's roots are its maker's.

    Raises:
        UnusableSoftwareRoot: If the root's key is damaged, or others may read it.
    """
    if settings.attestation != SOFTWARE_ROOT:
        return
    root = SoftwareRoot.load_or_create(settings.secrets / _ROOT_KEY)
    path = settings.attestation_trust
    path.parent.mkdir(parents=True, exist_ok=True)
    trust = AttestationTrust({SOFTWARE_ROOT: {"public_keys": [root.public_key.hex()]}})
    draft = path.with_suffix(".json.new")
    draft.write_text(trust.to_json())
    draft.replace(path)
