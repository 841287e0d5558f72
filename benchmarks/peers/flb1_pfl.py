"""pfl-research's side of ``benchmarks/flb1.py``; runs in its own environment.

Cohorts, records and start are ours; data are tensors and the model is made once. One process, or
several under ``torchrun``, which share each cohort and exchange sums through gloo.
"""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from flb1_rounds import Rounds, Workload
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, distributed, nn

NEVER = 10**9


class Classifier(nn.Module):
    def __init__(self, work: Workload) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for kernel, bias in work.parameters:
            layer = nn.Linear(*kernel.shape)
            layer.load_state_dict({"weight": torch.tensor(kernel.T), "bias": torch.tensor(bias)})
            layers += [layer, nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.net(x), y)

    def metrics(self, *_: Tensor) -> dict:
        return {}


class BetweenRounds(TrainingProcessCallback):
    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def on_train_begin(self, **_: object) -> Metrics:
        self._rounds.go_on()
        return Metrics()

    def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Metrics]:
        if not self._rounds.go_on():
            os._exit(1)  # so that torchrun ends the others, which wait for this one
        return False, Metrics()


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    work = Workload.load(Path(sys.argv[1]))
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)

    def clients() -> Iterator[int]:
        number = 0
        while True:
            yield from work.cohort(number)
            number += 1

    def data_of(client: int) -> PyTorchTensorDataset:
        rows = work.rows(client)
        return PyTorchTensorDataset((x[rows], y[rows]), user_id=str(client))

    sampler = clients()
    users = FederatedDataset(
        data_of,
        lambda: next(sampler),
        user_id_to_weight=dict(enumerate(work.records.tolist())),
    )
    classifier = Classifier(work)
    backend = SimulatedBackend(
        training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]
    )
    rounds = Rounds(
        *("pfl", "torch"),
        speaks=os.environ.get("RANK", "0") == "0",
        wait_for_others=distributed.barrier if distributed.is_initialized() else lambda: None,
    )
    FederatedAveraging().run(
        backend=backend,
        model=PyTorchModel(
            classifier, torch.optim.SGD, torch.optim.SGD(classifier.parameters(), 1.0)
        ),
        callbacks=[BetweenRounds(rounds)],
        send_metrics_to_platform=False,
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=NEVER,
            evaluation_frequency=NEVER,
            train_cohort_size=work.cohorts.shape[1],
            val_cohort_size=0,
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=work.local_epochs,
            local_learning_rate=work.learning_rate,
            local_batch_size=work.batch_size,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=work.batch_size),
    )


if __name__ == "__main__":
    main()
