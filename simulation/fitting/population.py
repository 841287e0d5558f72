"""Shares of measured device models among people's devices; models nobody measured are matched."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from device_runtime.errors import FlintError
from simulation.fitting.device_log import DeviceCounts
from simulation.fitting.hardware import Hardware

How = Literal["same", "alias", "nearest", "unmatched"]
DEFAULT_MAX_DISTANCE = 0.5
_EXAMPLES = 3


class NoModelMatched(FlintError):
    """No device of the logs has a model that was measured or is like one."""

    code = "FLN-2713"


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """Which measured model stands for one of the logs.

    Attributes:
        log_model: As the logs have it.
        device_model: The measured one; None if there is none.
        how: ``same`` name (but for case and blanks), an ``alias`` of it by the hardware table,
            ``nearest`` by hardware, or ``unmatched``.
        distance: Of the hardware (`Hardware.nearest`), also of an unmatched one; None if unknown.
        reason: Why it is unmatched.
    """

    log_model: str
    device_model: str | None
    how: How
    distance: float | None
    devices: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuiltPopulation:
    """Devices of the logs by measured model.

    Attributes:
        matches: Models of the logs, most devices first.
        counts: What the logs hold.
    """

    matches: tuple[ModelMatch, ...]
    counts: DeviceCounts

    def devices(self, *how: How) -> int:
        """Devices whose models were matched so."""
        return sum(match.devices for match in self.matches if match.how in how)

    @property
    def unmatched_share(self) -> float:
        """Of all devices, those without a measured model, or without any."""
        return (self.devices("unmatched") + self.counts.without_model) / self.counts.devices

    def table(self) -> pa.Table:
        """Columns ``device_model, share``, largest first: shares among matched devices."""
        weights: dict[str, int] = {}
        for match in self.matches:
            if match.device_model is not None:
                weights[match.device_model] = weights.get(match.device_model, 0) + match.devices
        total = sum(weights.values())
        ordered = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
        return pa.table(
            {
                "device_model": pa.array([name for name, _ in ordered], pa.string()),
                "share": pa.array([count / total for _, count in ordered], pa.float64()),
            }
        )

    def mapping(self) -> pa.Table:
        """The matches: ``log_model, device_model, how, distance, devices, share, reason``."""
        rows = [asdict(m) | {"share": m.devices / self.counts.devices} for m in self.matches]
        types = {"distance": pa.float64(), "devices": pa.int64(), "share": pa.float64()}
        names = ("log_model", "device_model", "how", "distance", "devices", "share", "reason")
        return pa.table(
            {n: pa.array([r[n] for r in rows], types.get(n, pa.string())) for n in names}
        )

    def as_json(self) -> dict[str, Any]:
        """Counts and shares, and examples of what is unmatched."""
        unmatched = [match for match in self.matches if match.how == "unmatched"]
        return {
            "devices": self.counts.devices,
            "rows": self.counts.rows,
            "rows_without_device": self.counts.without_device,
            "devices_without_model": self.counts.without_model,
            "devices_with_several_models": self.counts.with_several_models,
            "log_models": len(self.matches),
            "device_models": self.table().num_rows,
            "devices_by_match": {
                how: self.devices(how) for how in ("same", "alias", "nearest", "unmatched")
            },
            "unmatched_models": len(unmatched),
            "unmatched_share": self.unmatched_share,
            "unmatched_examples": [
                {"log_model": m.log_model, "devices": m.devices, "reason": m.reason}
                for m in unmatched[:_EXAMPLES]
            ],
        }


def build_population(
    counts: DeviceCounts,
    measured: Sequence[str],
    hardware: Hardware | None = None,
    *,
    max_distance: float = DEFAULT_MAX_DISTANCE,
) -> BuiltPopulation:
    """Find a measured model for every model of the logs.

    Names decide first, then other names of the same device, then the nearest hardware. A model
    farther than ``max_distance`` from all that were measured stays unmatched: it has no share.

    Args:
        measured: Device models of the profiles.
        hardware: Facts about models; None: only names decide.

    Raises:
        NoModelMatched: If no device is matched.
    """
    by_folded = {_folded(name): name for name in sorted(measured, reverse=True)}
    exact = set(measured)
    matches = []
    for model, devices in counts.devices_by_model.items():
        same = model if model in exact else by_folded.get(_folded(model))
        if same is not None:
            matches.append(ModelMatch(model, same, "same", 0.0, devices))
        else:
            matches.append(_match(model, devices, exact, hardware, max_distance))
    built = BuiltPopulation(
        tuple(sorted(matches, key=lambda match: (-match.devices, match.log_model))), counts
    )
    if built.devices("unmatched") == sum(counts.devices_by_model.values()):
        most = built.matches[0]
        raise NoModelMatched(
            f"none of the {len(built.matches)} device models of the logs was measured or is like "
            f"one that was (the most common, {most.log_model!r}: {most.reason}); give a --hardware "
            "table with it, a larger --max-distance, or profiles of these models"
        )
    return built


def _match(
    model: str, devices: int, measured: set[str], hardware: Hardware | None, max_distance: float
) -> ModelMatch:
    if hardware is None:
        reason = "not measured, and there is no hardware table"
        return ModelMatch(model, None, "unmatched", None, devices, reason)
    aliases = sorted(hardware.same_device.get(model, frozenset()) & measured)
    if aliases:
        return ModelMatch(model, aliases[0], "alias", 0.0, devices)
    found = hardware.nearest(model, sorted(measured))
    if found is None:
        reason = "not measured, and its hardware (or that of all measured models) is not known"
        return ModelMatch(model, None, "unmatched", None, devices, reason)
    nearest, distance = found
    if distance > max_distance:
        reason = f"the nearest measured model, {nearest}, is {distance:.2f} away"
        return ModelMatch(model, None, "unmatched", distance, devices, reason)
    return ModelMatch(model, nearest, "nearest", distance, devices)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
