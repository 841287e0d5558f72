"""A device's training examples under a feature service, joined when a task asks for them.

Each labelled event gives one example: its stored values, read through their `device_read` chains,
and what the cloud says of its keys now, from the cache or fetched where the view's policy and the
network allow it. An example that lacks what its view does not do without (``on_miss:
skip_example``, or no default) is left out. Without a network nothing is fetched, and the rest is
the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from device_runtime.columns import Column
from device_runtime.examples import Records, UnreadableExamples
from device_runtime.feature_inputs import FeatureInput, InputFeature, InputForm
from device_runtime.feature_manifest import FeatureManifest, ManifestView, Place
from device_runtime.feature_reader import FeatureReader
from device_runtime.feature_values import encode_key
from device_runtime.labelled_events import (
    LabelledEvent,
    LabelledEvents,
    device_features,
    stored_as,
)
from device_runtime.transform_assets import Assets


@dataclass(frozen=True, slots=True)
class FeatureSources:
    """Where the features of one service come from on this device.

    Attributes:
        events: What the device recorded.
        cloud: Reads the views of the cloud.
        assets: What `device_read` chains read.
        unmetered: Whether the network is, at this moment; None: there is none.
    """

    manifest: FeatureManifest
    events: LabelledEvents
    cloud: FeatureReader
    assets: Assets = field(default_factory=dict)
    unmetered: Callable[[], bool | None] = lambda: None


class JoinedExamples:
    """The examples of one service for one model; an `ExampleSource`."""

    def __init__(
        self, sources: FeatureSources, form: InputForm, label_shape: tuple[int, ...] = (1,)
    ) -> None:
        """Check that the model can read the features.

        Args:
            sources: What is joined.
            form: What the model reads.
            label_shape: Of a record's label.

        Raises:
            UnsuitableFeatures: If it cannot.
        """
        self._sources = sources
        self._label_shape = label_shape
        self._input = FeatureInput(form, input_features(sources.manifest))

    def count(self) -> int:
        """Number of labelled events now."""
        return self._sources.events.count()

    def load(self, max_records: int) -> tuple[Records, Records]:
        """Join the newest events, at most ``max_records``, oldest first.

        Returns:
            Inputs, shape ``(records, places)``, and labels ``(records, *label shape)``; fewer than
            there are events where features are missing that an example does not do without.

        Raises:
            UnreadableExamples: If a label is not of the model's shape.
            UnsuitableColumn: If the cloud's values are not of the kind its view says.
            UnsuitableFeatureValue: If a value cannot be part of the model's input.
        """
        events = self._sources.events.newest(max_records)
        columns = self._device_columns(events)
        for view in self._sources.manifest.views.values():
            if view.place is Place.CLOUD and events:
                events, columns = self._join(view, events, columns)
        if not events:
            empty = np.zeros((0, self._input.form.places), self._input.dtype)
            return empty, np.zeros((0, *self._label_shape), np.float32)
        return self._input.assemble(columns), self._labels(events)

    def _device_columns(self, events: Sequence[LabelledEvent]) -> dict[str, Column]:
        columns = {}
        for f in device_features(self._sources.manifest) if events else ():
            stored = [event.columns[stored_as(f)] for event in events]
            column = Column.of(stored, kind=f.ingest.gives(f.kind))
            columns[f.name] = f.read.apply(column, self._sources.assets)
        return columns

    def _join(
        self, view: ManifestView, events: list[LabelledEvent], columns: dict[str, Column]
    ) -> tuple[list[LabelledEvent], dict[str, Column]]:
        """Add a cloud view's features; events that it leaves out go from all columns."""
        names = [key.name for key in view.join_keys]
        keys = [encode_key([event.keys[name] for name in names]) for event in events]
        read = self._sources.cloud.read(view.name, keys, unmetered=self._sources.unmetered())
        rows = np.array(read.rows, np.int64)
        kept = {
            name: Column(column.kind, column.values[rows], column.missing[rows])
            for name, column in columns.items()
        }
        return [events[row] for row in read.rows], kept | dict(read.columns)

    def _labels(self, events: Sequence[LabelledEvent]) -> Records:
        try:
            labels = np.array([event.label for event in events], np.float32)
            return labels.reshape(len(events), *self._label_shape)
        except (ValueError, TypeError) as error:
            raise UnreadableExamples(
                f"a label of the events for {self._sources.manifest.service} is not of the shape "
                f"{self._label_shape} that the model learns ({error}); record one a task"
            ) from error


def input_features(manifest: FeatureManifest) -> tuple[InputFeature, ...]:
    """The features of a service as a model gets them.

    Whether one may be missing was asked where the job was submitted, which knows the whole chain;
    here a number that is missing all the same is refused when it is met.
    """
    return tuple(
        InputFeature(f.name, f.gives, f.gives_shape, may_miss=False) for f in manifest.features
    )
