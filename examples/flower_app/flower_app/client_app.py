"""A plain Flower ClientApp: it knows nothing of how its updates are put together."""

import time

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_app.task import Clicks, evaluate, generate_clicks, train

app = ClientApp()


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    """Train on the node's own clicks; answer with the new arrays."""
    clicks, config = _clicks(context), context.run_config
    parameters = {name: array.numpy() for name, array in message.content["arrays"].items()}
    trained, loss = train(
        parameters,
        clicks,
        epochs=int(config["local-epochs"]),
        learning_rate=float(config["learning-rate"]),
    )
    if context.node_config.get("partition-id") == 0:
        time.sleep(float(config["slowest-s"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(array) for name, array in trained.items()}),
            "metrics": MetricRecord({"train-loss": loss, "num-examples": len(clicks.labels)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate_locally(message: Message, context: Context) -> Message:
    """Evaluate on the node's own clicks."""
    clicks = _clicks(context)
    parameters = {name: array.numpy() for name, array in message.content["arrays"].items()}
    loss, accuracy = evaluate(parameters, clicks)
    metrics = {"eval-loss": loss, "accuracy": accuracy, "num-examples": len(clicks.labels)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _clicks(context: Context) -> Clicks:
    return generate_clicks(int(context.node_config.get("partition-id", context.node_id % 1000)))
