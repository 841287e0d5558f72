"""What a user did on a device that stands in for a phone: replayed into its event store.

On a phone an app records events as they happen, through the chains of the feature manifest it has.
A device of `flint device fleet` has no user, so its folder holds what one did, as JSON; once the
device has a manifest, the events go through the same chains into the same store, and the file goes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from device_runtime.errors import FlintError
from device_runtime.feature_values import Value
from device_runtime.labelled_events import Key, LabelledEvents

MAX_ACTIVITY_BYTES = 256 * 2**20


class UnreadableActivity(FlintError):
    """A file that should hold a user's activity does not."""

    code = "FLN-2963"


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event, before any transform.

    Attributes:
        keys: Values of join keys by name.
        events: By device view, the values of its fields.
        label: One number, or one a task.
        at_ms: When it happened, since the epoch.
    """

    keys: Mapping[str, Key]
    events: Mapping[str, Mapping[str, Value]]
    label: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class UserActivity:
    """What one user did, oldest first."""

    service: str
    events: tuple[UserEvent, ...]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        rows = [[e.keys, e.events, e.label, e.at_ms] for e in self.events]
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({"service": self.service, "events": rows}))
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Inverse of `write`.

        Raises:
            UnreadableActivity: If it is something else.
        """
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(MAX_ACTIVITY_BYTES))  # what is cut is no JSON
            return cls(str(found["service"]), tuple(_events(found["events"])))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UnreadableActivity(
                f"{path} is not the activity of a user ({error}); delete the device's folder and "
                "let `flint device fleet` fill it anew"
            ) from error


def replay(path: Path, events: LabelledEvents) -> int:
    """Record a user's activity, and delete the file; returns how many events are kept.

    What the store held before goes: a replay that was killed is done again whole. Activity that is
    not for the store's service is left alone.

    Raises:
        UnreadableActivity: If the file is something else.
        UnsuitableLabelledEvent: If an event is not of the service.
    """
    activity = UserActivity.read(path)
    if activity.service != events.service:
        return 0
    with events.database.transaction():
        events.clear()
        for event in activity.events:
            events.append(event.keys, event.events, event.label, at_ms=event.at_ms)
    path.unlink()
    return events.count()


def _events(rows: Iterable[Any]) -> Iterable[UserEvent]:
    for keys, events, label, at_ms in rows:
        yield UserEvent(dict(keys), {view: dict(e) for view, e in events.items()}, label, at_ms)
