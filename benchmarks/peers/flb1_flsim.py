"""FLSim's side of ``benchmarks/flb1.py``; runs in its own environment.

Its synchronous trainer; cohorts, records and start are ours. It is no longer maintained: from
Python 3.11 on its settings are refused (dataclasses as defaults), so these are made hashable first.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from flb1_rounds import Rounds, Workload
from torch import nn

_get_field = dataclasses._get_field


def _get_field_of_hashable_default(cls: type, name: str, *rest: object) -> object:
    default = getattr(cls, name, None)
    kind = type(getattr(default, "default", default))
    if kind.__hash__ is None and dataclasses.is_dataclass(kind):
        kind.__hash__ = object.__hash__
    return _get_field(cls, name, *rest)


dataclasses._get_field = _get_field_of_hashable_default

import flsim.configs  # noqa: E402, F401 - makes its settings known
from flsim.data.data_provider import IFLDataProvider, IFLUserData  # noqa: E402
from flsim.interfaces.metrics_reporter import Channel  # noqa: E402
from flsim.interfaces.model import IFLModel  # noqa: E402
from flsim.metrics_reporter.tensorboard_metrics_reporter import FLMetricsReporter  # noqa: E402
from flsim.trainers.sync_trainer import SyncTrainer  # noqa: E402
from flsim.utils.config_utils import fl_config_from_json  # noqa: E402
from flsim.utils.simple_batch_metrics import FLBatchMetrics  # noqa: E402
from hydra.utils import instantiate  # noqa: E402

MANY_EPOCHS = 10_000


class User(IFLUserData):
    def __init__(self, work: Workload, x: torch.Tensor, y: torch.Tensor, client: int) -> None:
        rows = work.rows(client)
        self._x, self._y, self._batch_size = x[rows], y[rows], work.batch_size

    def num_train_examples(self) -> int:
        return len(self._x)

    def num_eval_examples(self) -> int:
        return 0

    def num_train_batches(self) -> int:
        return -(-len(self._x) // self._batch_size)

    def num_eval_batches(self) -> int:
        return 0

    def train_data(self) -> Iterator[dict]:
        size = self._batch_size
        for x, y in zip(self._x.split(size), self._y.split(size), strict=True):
            yield {"features": x, "labels": y}

    def eval_data(self) -> Iterator[dict]:
        return iter(())


class Users(IFLDataProvider):
    def __init__(self, work: Workload) -> None:
        x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
        self._users = [User(work, x, y, client) for client in range(len(work.records))]

    def train_user_ids(self) -> list[int]:
        return list(range(len(self._users)))

    def num_train_users(self) -> int:
        return len(self._users)

    def get_train_user(self, user_index: int) -> User:
        return self._users[user_index]

    def train_users(self) -> Iterator[User]:
        return iter(self._users)

    def eval_users(self) -> Iterator[User]:
        return iter(())

    def test_users(self) -> Iterator[User]:
        return iter(())


class Classifier(IFLModel):
    def __init__(self, work: Workload) -> None:
        layers: list[nn.Module] = []
        for kernel, bias in work.parameters:
            layer = nn.Linear(*kernel.shape)
            layer.load_state_dict({"weight": torch.tensor(kernel.T), "bias": torch.tensor(bias)})
            layers += [layer, nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def fl_forward(self, batch: dict) -> FLBatchMetrics:
        logits = self.model(batch["features"])
        return FLBatchMetrics(
            loss=nn.functional.binary_cross_entropy_with_logits(logits, batch["labels"]),
            num_examples=len(logits),
            predictions=logits.detach(),
            targets=batch["labels"],
            model_inputs=[],
        )

    def fl_create_training_batch(self, **batch: torch.Tensor) -> dict:
        return batch

    def fl_get_module(self) -> nn.Module:
        return self.model

    def fl_cuda(self) -> None:
        pass

    def get_eval_metrics(self, batch: dict) -> FLBatchMetrics:
        return self.fl_forward(batch)

    def get_num_examples(self, batch: dict) -> int:
        return len(batch["labels"])


class NoMetrics(FLMetricsReporter):
    def __init__(self) -> None:
        super().__init__([Channel.STDOUT], None)

    def report_metrics(self, *_: object, **__: object) -> tuple[None, bool]:
        return None, False

    def add_batch_metrics(self, *_: object, **__: object) -> None:
        pass

    def compare_metrics(self, *_: object) -> bool:
        return False

    def compute_scores(self) -> dict:
        return {}

    def create_eval_metrics(self, *_: object, **__: object) -> None:
        return None

    def get_latest_scores(self) -> dict:
        return {}


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    work = Workload.load(Path(sys.argv[1]))
    rounds, number = Rounds("flsim", "torch"), 0

    class InRounds(SyncTrainer):
        def _client_selection(self, *_: object, **__: object) -> list:
            nonlocal number
            if not rounds.go_on():
                os._exit(0)
            number += 1
            return [
                self.create_or_get_client_for_data(client, self.data_provider)
                for client in work.cohort(number - 1)
            ]

    sgd = {"_base_": "base_optimizer_sgd", "lr": work.learning_rate, "momentum": 0}
    server = {
        "_base_": "base_sync_server",
        "server_optimizer": {"_base_": "base_fed_avg_with_lr", "lr": 1.0, "momentum": 0.0},
        "aggregation_type": "WEIGHTED_AVERAGE",
        "active_user_selector": {"_base_": "base_uniformly_random_active_user_selector"},
    }
    settings = {
        "_base_": "base_sync_trainer",
        "epochs": MANY_EPOCHS,
        "server": server,
        "client": {"epochs": work.local_epochs, "optimizer": sgd},
        "users_per_round": work.cohorts.shape[1],
        "do_eval": False,
        "report_train_metrics": False,
        "report_train_metrics_after_aggregation": False,
        "always_keep_trained_model": False,
    }
    config = fl_config_from_json({"trainer": settings})
    trainer = instantiate(config.trainer, model=Classifier(work), cuda_enabled=False)
    trainer.__class__ = InRounds
    trainer.train(
        data_provider=Users(work),
        metrics_reporter=NoMetrics(),
        num_total_users=len(work.records),
        distributed_world_size=1,
    )


if __name__ == "__main__":
    main()
