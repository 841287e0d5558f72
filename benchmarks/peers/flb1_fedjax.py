"""FedJAX's side of ``benchmarks/flb1.py``; runs in its own environment.

Its `federated_averaging` on its ``jit`` back end. Cohorts, records and start are ours. Batches are
exactly as long as they are, the last one short: it compiles a program for each length, in rounds
that are not measured. Its newest release is older than the jax that it is run on, which has dropped
two names that it uses; they are put back.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

jax.tree_map = jax.tree.map
jax.tree_leaves = jax.tree.leaves

import fedjax  # noqa: E402 - after what it needs
from fedjax.algorithms import fed_avg  # noqa: E402
from flb1_rounds import Rounds, Workload  # noqa: E402


def loss(params: list, batch: dict, _: jax.Array) -> jax.Array:
    activations = batch["x"]
    for place, (kernel, bias) in enumerate(params):
        activations = activations @ kernel + bias
        if place < len(params) - 1:
            activations = jax.nn.relu(activations)
    logits, labels = activations[:, 0], batch["y"][:, 0]
    losses = jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.mean(losses)


def main() -> None:
    work = Workload.load(Path(sys.argv[1]))
    fedjax.set_for_each_client_backend("jit")
    algorithm = fed_avg.federated_averaging(
        jax.jit(jax.grad(loss)),
        fedjax.optimizers.sgd(work.learning_rate),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=work.batch_size, num_epochs=work.local_epochs, drop_remainder=False
        ),
    )
    state = algorithm.init([(jnp.asarray(k), jnp.asarray(b)) for k, b in work.parameters])
    data = {
        client: fedjax.ClientDataset(
            {"x": work.x[work.rows(client)], "y": work.y[work.rows(client)]}
        )
        for client in range(len(work.records))
    }
    key, number = jax.random.PRNGKey(0), 0
    rounds = Rounds("fedjax", "jax", "jaxlib")
    while rounds.go_on():
        cohort = work.cohort(number)
        keys = jax.random.split(jax.random.fold_in(key, number), len(cohort))
        clients = [(c, data[c], k) for c, k in zip(cohort, keys, strict=True)]
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        number += 1


if __name__ == "__main__":
    main()
