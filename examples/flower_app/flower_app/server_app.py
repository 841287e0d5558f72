"""A ServerApp as any other; only the strategy comes from FLINT."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy

from flower_app.task import HELD_OUT, evaluate, generate_clicks, initial_parameters
from server.flower.strategies import FedBuff, OverCommittedFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and evaluate each version on users that never train."""
    config = context.run_config
    held_out = generate_clicks(HELD_OUT)

    def evaluate_held_out(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        del server_round
        parameters = {name: array.numpy() for name, array in arrays.items()}
        loss, accuracy = evaluate(parameters, held_out)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    initial = initial_parameters()
    result = strategy_of(config).start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in initial.items()}),
        num_rounds=int(config["num-server-rounds"]),
        timeout=600,
        evaluate_fn=evaluate_held_out,
    )
    if config["save-to"]:
        save(result, str(config["save-to"]))


def strategy_of(config: UserConfig) -> Strategy:
    """The strategy the run's configuration names."""
    if config["strategy"] == "fedbuff":
        return FedBuff(
            buffer_size=int(config["buffer-size"]),
            concurrency=int(config["concurrency"]),
            max_staleness=int(config["max-staleness"]),
            evaluate_every=5,
        )
    if config["strategy"] == "fedavg":
        return OverCommittedFedAvg(
            cohort_size=int(config["cohort-size"]),
            over_commitment=float(config["over-commitment"]),
            round_deadline_s=float(config["round-deadline-s"]),
            evaluate_every=5,
        )
    raise ValueError(f"strategy is {config['strategy']!r}; it must be 'fedbuff' or 'fedavg'")


def save(result: Result, path: str) -> None:
    """Write the final arrays, and the accuracy on held-out users after each round."""
    held_out = result.evaluate_metrics_serverapp
    federated = result.evaluate_metrics_clientapp
    np.savez(
        path,
        **{name: array.numpy() for name, array in result.arrays.items()},
        accuracy=[held_out[server_round]["accuracy"] for server_round in sorted(held_out)],
        evaluated_rounds=sorted(federated),
    )
