"""Training data made on the device: what was inferred, and what the user then did (FLINT, 4.3).

`InferenceLog.infer` scores candidates and logs each with its features as they were served. A
user's event about one of them, within the window, makes it a training example; once the window has
passed, what nobody acted on becomes a negative example or is dropped, as the rule says. From then
on the examples' retention owns it. Each candidate shown gives one example at most, and both sides
of a join are one transaction. Features are never computed again: a model learns from what it saw.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from device_runtime.errors import FlintError
from device_runtime.examples import Records, UnreadableExamples
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import Retention
from device_runtime.retained_records import RetainedRecord, RetainedRecords

_CLOSE_AT_ONCE = 1000


class UnsuitableInference(FlintError):
    """Candidates and features that do not go together, or a label rule that makes no sense."""

    code = "FLN-2857"


class Unlabelled(StrEnum):
    """What a candidate becomes that no event came for within the window."""

    NEGATIVE = "negative"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How inferences become examples.

    Attributes:
        window_s: How long after an inference an event still counts.
        unlabelled: What becomes of a candidate without one.
        pending: Limits of inferences that wait; their age is the window's affair.
    """

    window_s: float
    unlabelled: Unlabelled = Unlabelled.NEGATIVE
    pending: Retention = Retention(max_records=10_000, max_bytes=8 * 2**20)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not 0 < self.window_s < 2**31:
            raise UnsuitableInference(
                f"the label window is {self.window_s} s; give a number of seconds above 0"
            )


@dataclass(frozen=True, slots=True)
class Inference:
    """What was shown, best first if the caller orders it so.

    Attributes:
        inference_id: What later events name it by.
        scores: The model's logits, float32, shape ``(candidates, *label shape)``.
        logged: How many candidates are logged; fewer than shown if there was no room.
    """

    inference_id: str
    candidates: tuple[str, ...]
    scores: NDArray[np.float32]
    logged: int


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """What became of inferences whose window has passed."""

    negatives: int
    dropped: int


class TrainingExamples:
    """One model's examples made on this device, under retention; an `ExampleSource`."""

    def __init__(self, database: FeatureDatabase, model: str, retention: Retention) -> None:
        self._records = RetainedRecords(database, f"example/{model}", retention)

    @property
    def database(self) -> FeatureDatabase:
        """Where they are."""
        return self._records.database

    def append(self, x: Records, y: Records, *, at_ms: int | None = None) -> bool:
        """Add one example; returns whether it is kept."""
        body = cbor2.dumps([_packed(x), _packed(y)])
        return self._records.append(body, at_ms=at_ms)

    def count(self) -> int:
        """Number of examples now."""
        return self._records.count()

    def totals(self) -> tuple[int, int]:
        """Number of examples and the bytes they count as."""
        return self._records.totals()

    def load(self, max_records: int) -> tuple[Records, Records]:
        """The newest examples of the newest one's form, at most ``max_records``, oldest first.

        Returns:
            Inputs, shape ``(records, *input shape)``, and labels ``(records, *label shape)``.

        Raises:
            UnreadableExamples: If there are none.
        """
        pairs = [cbor2.loads(record.body) for record in self._records.newest(max_records)]
        if not pairs:
            raise UnreadableExamples("no training example was made yet; infer and label first")
        form = [part[:2] for part in pairs[-1]]
        same = [pair for pair in pairs if [part[:2] for part in pair] == form]
        return _stacked([x for x, _ in same]), _stacked([y for _, y in same])


class InferenceLog:
    """Infers, logs what was served, and turns it into examples."""

    def __init__(self, examples: TrainingExamples, model: str, rule: LabelRule) -> None:
        """Take up what waits.

        Args:
            examples: Where examples go, in the same file as the log.
            model: Whose inferences these are.
            rule: How they become examples.
        """
        self._examples = examples
        self._model = model
        self._rule = rule
        self._waiting = RetainedRecords(examples.database, f"inference/{model}", rule.pending)

    def infer(
        self, engine: LiteRtEngine, x: Records, candidates: Sequence[str], *, version: int = 0
    ) -> Inference:
        """Score candidates and log each with its features.

        Args:
            engine: With the parameters to infer with loaded.
            x: Features as served, shape ``(candidates, *input shape)``.
            candidates: What was scored, e.g. item ids, each once.
            version: Of the model, for the log.

        Raises:
            UnsuitableInference: If candidates repeat, or are not as many as rows of features.
            UnsuitableExamples: If the features are not what the model takes.
        """
        if len(set(candidates)) != len(candidates) or len(candidates) != len(x):
            raise UnsuitableInference(
                f"{len(candidates)} candidates ({len(set(candidates))} distinct) were given with "
                f"{len(x)} rows of features; give each candidate once, with one row"
            )
        labels = np.zeros((len(x), *engine.manifest.label_shape), np.float32)
        engine.check_examples(x, labels)
        scores = engine.infer(x)
        inference_id = uuid.uuid4().hex
        with self._waiting.database.transaction():
            logged = sum(
                self._waiting.append(
                    cbor2.dumps([version, place, _packed(scores[place]), _packed(x[place])]),
                    name=_name(inference_id, candidate),
                )
                for place, candidate in enumerate(candidates)
            )
        return Inference(inference_id, tuple(candidates), scores, logged)

    def observe(
        self, inference_id: str, candidate: str, label: float | NDArray[np.float32] = 1.0
    ) -> bool:
        """Join a user's event to what was shown, and make it an example.

        Returns:
            Whether it made one. Not if it came after the window, a second time, or for what was
            never shown; nor if retention keeps no more.
        """
        with self._waiting.database.transaction():
            found = self._waiting.named(_name(inference_id, candidate))
            self._waiting.delete([record.number for record in found])
            in_time = [r for r in found if r.age_ms <= self._rule.window_s * 1000]
            if not in_time:
                self._close(found)
                return False
            return self._make_example(in_time[0], label)

    def close_windows(self) -> ClosedWindows:
        """Settle every inference whose window has passed; call it before training."""
        negatives = dropped = 0
        while True:
            with self._waiting.database.transaction():
                past = self._waiting.older_than(self._rule.window_s, _CLOSE_AT_ONCE)
                self._waiting.delete([record.number for record in past])
                made = self._close(past)
            negatives += made
            dropped += len(past) - made
            if not past:
                return ClosedWindows(negatives, dropped)

    def waiting(self) -> int:
        """Candidates that wait for an event."""
        return self._waiting.count()

    def _close(self, past: Sequence[RetainedRecord]) -> int:
        if self._rule.unlabelled is Unlabelled.DROP:
            return 0
        return sum(self._make_example(record, 0.0) for record in past)

    def _make_example(self, record: RetainedRecord, label: float | NDArray[np.float32]) -> bool:
        _, _, scores, x = cbor2.loads(record.body)
        y = np.broadcast_to(np.asarray(label, np.float32), scores[1])  # a label is shaped as logits
        return self._examples.append(_stacked([x])[0], y, at_ms=record.at_ms)


def _name(inference_id: str, candidate: str) -> str:
    return f"{inference_id}/{candidate}"


def _packed(array: Records) -> list[Any]:
    contiguous = np.ascontiguousarray(array)
    return [contiguous.dtype.str, list(array.shape), contiguous.tobytes()]


def _stacked(parts: Sequence[list[Any]]) -> Records:
    dtype, shape, _ = parts[0]
    return np.frombuffer(b"".join(part[2] for part in parts), dtype).reshape(len(parts), *shape)
