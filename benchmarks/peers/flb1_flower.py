"""Flower's side of ``benchmarks/flb1.py``; runs in its own environment.

Its simulation runtime on Ray: a node for each of the first `NODES` clients (ten times as many start
longer and run slower), a worker of one thread for each core; a worker keeps records and model.
Flower's own FedAvg draws the nodes of a round.
"""

import os
import sys
from pathlib import Path

NODES = 1000


def main() -> None:
    import numpy as np
    from flb1_rounds import Rounds, Workload
    from flwr.app import ArrayRecord, Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    work = Workload.load(Path(sys.argv[1]))
    rounds = Rounds("flwr", "ray", "torch")
    cohort = work.cohorts.shape[1]

    class InRounds(FedAvg):
        def configure_train(self, *arguments: object, **named: object) -> object:
            if not rounds.go_on():
                os._exit(0)  # Ray's processes end with the one that started them
            return super().configure_train(*arguments, **named)

    server = ServerApp()

    @server.main()
    def _(grid: Grid, _: Context) -> None:
        strategy = InRounds(
            fraction_train=cohort / NODES,
            fraction_evaluate=0.0,
            min_train_nodes=cohort,
            min_evaluate_nodes=0,
            min_available_nodes=NODES,
        )
        arrays = [np.ascontiguousarray(array) for k, b in work.parameters for array in (k.T, b)]
        strategy.start(grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=10**6)

    from flb1_flower_client import app  # from a module, so that what it keeps is kept

    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=NODES,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    os.environ["FLB1_WORKLOAD"] = sys.argv[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    main()
