"""Who vouches for an enclave: one `Attester` a provider, named by the enclave's configuration."""

from server.secure_aggregation.attesters.attester import (
    ATTESTER_GROUP,
    Attester,
    AttesterSettings,
    UnknownAttester,
    load_attester,
)

__all__ = ["ATTESTER_GROUP", "Attester", "AttesterSettings", "UnknownAttester", "load_attester"]
