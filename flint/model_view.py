"""What `flint model check` says of a model, for people and for programs."""

import json
import math
from typing import Any

from modeling.model_check import ModelCheck
from modeling.model_sizes import BELOW_BYTES, AppKind, fits


def described(check: ModelCheck) -> dict[str, Any]:
    """The check as JSON; a loss or difference that is not a number is null."""
    return {
        "model": check.spec.name,
        "origin": check.origin,
        "fit": check.is_fit,
        "converts": not check.custom_operators,
        "operators": list(check.operators),
        "custom_operators": list(check.custom_operators),
        "trains": check.trains,
        "first_loss": _finite(check.first_loss),
        "last_loss": _finite(check.last_loss),
        "learning_steps": check.learning_steps,
        "matches_twin": check.matches_twin,
        "max_difference": _finite(check.max_difference),
        "tolerance": check.tolerance,
        "parity_steps": check.parity_steps,
        "parameters": check.sizes.parameters,
        "frozen_parameters": check.sizes.frozen_parameters,
        "storage_bytes": check.sizes.storage_bytes,
        "network_bytes": check.sizes.network_bytes,
        "size_class": check.sizes.size_class,
        "spec": json.loads(check.spec.to_json()),
    }


def shown(check: ModelCheck) -> dict[str, object]:
    """The check as lines for a reader."""
    sizes = check.sizes
    frozen = f", {sizes.frozen_parameters:,} frozen" if sizes.frozen_parameters else ""
    return {
        "model": f"{check.spec.name} ({check.origin})",
        "converts": "no"
        if check.custom_operators
        else f"yes: {len(check.operators)} builtin operators, no others",
        "trains": f"{_yes(check.trains)}: loss {check.first_loss:.4g} -> {check.last_loss:.4g} in "
        f"{check.learning_steps} steps on random records",
        "matches its twin": f"{_yes(check.matches_twin)}: largest difference "
        f"{check.max_difference:.1e} after {check.parity_steps} steps",
        "parameters": f"{sizes.parameters:,} trained{frozen}",
        "storage": _megabytes(sizes.storage_bytes),
        "network": f"{_megabytes(sizes.network_bytes)} a task, down and up",
        "size class": sizes.size_class,
    }


def sentences(check: ModelCheck) -> list[str]:
    """What keeps devices from training it, and the mend."""
    found = []
    if check.custom_operators:
        found.append(
            f"phones do not have {', '.join(check.custom_operators)}; `flint errors FLN-1502` "
            "says what to use instead"
        )
    if not check.trains:
        found.append(
            f"the loss went from {check.first_loss:.4g} to {check.last_loss:.4g} on records it saw "
            f"{check.learning_steps} times; begin from smaller weights or fewer layers"
        )
    if not check.matches_twin:
        found.append(
            f"device and {check.origin} differ by {check.max_difference:.1e} (more than "
            f"{check.tolerance:.0e}); begin from smaller weights, or take out what is random in "
            "training"
        )
    return found


def too_large(check: ModelCheck, kind: AppKind) -> list[str]:
    """That the file is larger than an app of this kind takes, if it is, and the mend."""
    if fits(kind, check.sizes.storage_bytes):
        return []
    return [
        f"the file has {_megabytes(check.sizes.storage_bytes)}, and a {kind} takes less than "
        f"{_megabytes(BELOW_BYTES[kind])}; make the largest table smaller (docs/models.md)"
    ]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
