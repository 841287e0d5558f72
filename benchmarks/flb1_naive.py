"""The loop over clients that one writes first: FLB-1's measure of speed, and of what is right.

One torch module, the global state loaded for each client, autograd and `torch.optim.SGD`, deltas
summed in place, no losses kept. It sees the records of a client in our order. As a script it is a
driver of `flb1.py` like those in ``peers/``, in an environment that has our packages.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import flatten, unflatten
from modeling.spec import ModelSpec
from modeling.torch_models import build_torch
from simulation.executors import TrainingTask
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan


class NaiveLoop:
    """Trains clients one after the other, on one thread."""

    def __init__(self, spec: ModelSpec, plan: LocalPlan, records: ClientRecords) -> None:
        self._spec, self._plan, self._records = spec, plan, records
        self._model = build_torch(spec)

    def round(
        self, tasks: Sequence[TrainingTask], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """FedAvg's next weights, shape ``(parameters,)``."""
        plan, model = self._plan, self._model
        names = [name for name, _ in model.named_parameters()]
        arrays = unflatten(self._spec.parameters, weights)
        start = {name: torch.tensor(array) for name, array in zip(names, arrays, strict=True)}
        totals = [torch.zeros_like(each) for each in start.values()]
        weight = 0.0
        for task in tasks:
            found = self._records.of(task.data_client, newest=plan.max_records)
            x, y = map(torch.from_numpy, found)
            model.load_state_dict(start)
            optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
            for epoch in range(plan.local_epochs):
                order = torch.from_numpy(epoch_order(len(x), task.shuffle_seed, epoch))
                for chosen in torch.split(order, plan.batch_size):
                    optimizer.zero_grad()
                    losses = binary_cross_entropy_with_logits(
                        model(x[chosen]), y[chosen], reduction="sum"
                    )
                    (losses / len(chosen)).backward()
                    optimizer.step()
            with torch.no_grad():
                for total, local, base in zip(
                    totals, model.parameters(), start.values(), strict=True
                ):
                    total.add_(local.sub_(base), alpha=task.weight)
            weight += task.weight
        return weights + flatten([total.numpy() for total in totals]) / np.float32(weight)


def main() -> None:
    here = Path(__file__).parent
    sys.path += [str(here.parent), str(here / "peers")]
    from flb1_rounds import Rounds
    from flb1_workload import read_workload, tasks_of

    torch.set_num_threads(1)
    work, plan = read_workload(Path(sys.argv[1]))
    loop = NaiveLoop(work.spec, plan, work.records)
    weights, number = flatten(work.start), 0
    rounds = Rounds("torch")
    while rounds.go_on():
        weights = loop.round(tasks_of(work, number % len(work.cohorts)), weights)
        number += 1


if __name__ == "__main__":
    main()
