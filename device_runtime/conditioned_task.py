"""A task at imposed speeds: when each of its phases ends, and what it costs the device by then.

The work is real and takes as long as it takes; what is missing to the imposed time is waited for by
the runner. A task costs what the imposed device would have spent: all bytes of its parameters,
though identities of one process share a cache of blobs; the artefact was installed before.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from device_runtime.device_store import PendingUpdate
from device_runtime.examples import ExampleSource
from device_runtime.feature_tasks import FeatureTasks
from device_runtime.imposed_conditions import ImposedConditions
from device_runtime.leased_task import LeasedTask, SharedParts
from device_runtime.manifest import ParameterSpec
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_parameters


@dataclass(frozen=True, slots=True)
class ImposedTime:
    """What one device is imposed, on its own clock.

    Attributes:
        clock: Seconds since the epoch of unix.
        window_end_s: When the window that is open now ends, on that clock.
    """

    conditions: ImposedConditions
    clock: Callable[[], float]
    window_end_s: float


class ConditionedTask(LeasedTask):
    """A `LeasedTask` whose phases have an end imposed; all times are on the device's clock.

    Attributes:
        imposed: Conditions while it was leased.
        downloaded_s: When its parameters have come; infinite until it is prepared.
        trained_s: When its training ends.
        began_s: When it was leased.
        download_bytes: Of its parameters; 0 until it is prepared.
        trained: The update and the size of its bytes, once training is done.
    """

    def __init__(
        self,
        task: pb.Task,
        policy: ParticipationPolicy,
        shared: SharedParts,
        imposed: ImposedTime,
    ) -> None:
        super().__init__(task, policy, shared)
        self.imposed = imposed
        self.downloaded_s = self.trained_s = float("inf")
        self.began_s = imposed.clock()
        self.trained: tuple[PendingUpdate, int] | None = None
        self.download_bytes = 0

    def prepare(self, examples: ExampleSource, features: FeatureTasks | None = None) -> None:
        """See `LeasedTask.prepare`; from then on it is known when download and training end."""
        super().prepare(examples, features)
        conditions, plan = self.imposed.conditions, self.task.plan
        self.download_bytes = parameters_bytes(self._prepared().manifest.parameters)
        arrives_s = self.began_s + conditions.download_s(self.download_bytes)
        self.downloaded_s = max(arrives_s, self.imposed.clock())
        count = min(examples.count(), plan.max_records)
        self.trained_s = self.downloaded_s + conditions.train_s(count, plan.local_epochs)

    def train(self, budget_s: float) -> bool:
        """See `LeasedTask.train`; a host slower than the imposed device is counted as that."""
        done = super().train(budget_s)
        if done and self.imposed.clock() > self.trained_s:
            self.trained_s = self.imposed.clock()
            self._shared.counts["slower_than_imposed"] += 1
        return done

    def update(self) -> tuple[PendingUpdate, bytes]:
        """See `LeasedTask.update`; with the cost imposed."""
        pending, payload = super().update()
        train_s = self.trained_s - self.downloaded_s
        pending = replace(pending, train_s=train_s, bytes_down=self.download_bytes)
        self.trained = pending, len(payload)
        return pending, payload

    def cost(self) -> pb.DeviceCost:
        """What it has cost the imposed device by now."""
        cost = super().cost()
        now_s = self.imposed.clock()
        cost.train_s = max(0.0, min(now_s, self.trained_s) - self.downloaded_s)
        cost.bytes_down = moved(self.download_bytes, self.began_s, now_s, self.downloaded_s)
        return cost


def moved(size_bytes: int, began_s: float, now_s: float, ends_s: float) -> int:
    """Bytes of a transfer that have come by now, at a constant speed."""
    if now_s >= ends_s:
        return size_bytes
    return int(size_bytes * max(0.0, now_s - began_s) / (ends_s - began_s))


@lru_cache(maxsize=16)
def parameters_bytes(parameters: tuple[ParameterSpec, ...]) -> int:
    """Bytes of a version of a model as a gateway sends it; the same for all its versions."""
    zeros = [np.zeros(parameter.shape, dtype=np.float32) for parameter in parameters]
    return len(encode_parameters(parameters, zeros))
