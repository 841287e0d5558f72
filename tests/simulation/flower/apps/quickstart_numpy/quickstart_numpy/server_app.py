"""quickstart-numpy: A Flower / NumPy app."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx

from quickstart_numpy.task import FEATURES, TRUTH

STRATEGIES = {"fedavg": FedAvg, "fedadam": FedAdam, "fedprox": FedProx}

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    config = context.run_config
    strategy = STRATEGIES[config["strategy"]](
        fraction_train=config["fraction-train"],
        fraction_evaluate=config["fraction-evaluate"],
        min_available_nodes=config["min-available-nodes"],
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(FEATURES)]),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
        timeout=config["timeout"],
        evaluate_fn=global_evaluate if config["server-evaluation"] else None,
    )


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Distance to the truth, which only the server knows."""
    (weights,) = arrays.to_numpy_ndarrays()
    distance = float(np.linalg.norm(weights - TRUTH))
    return MetricRecord({"closeness": 1.0 / (1.0 + distance), "mse": distance**2})
