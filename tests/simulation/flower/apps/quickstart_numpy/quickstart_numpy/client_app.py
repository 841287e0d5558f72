"""quickstart-numpy: A Flower / NumPy app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quickstart_numpy.task import accuracy, load_data, loss
from quickstart_numpy.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    (weights,) = msg.content["arrays"].to_numpy_ndarrays()
    features, labels = load_data(context.node_config["partition-id"])
    rounds = context.state.metric_records.setdefault("rounds", MetricRecord({"seen": 0}))
    rounds["seen"] += 1
    weights, train_loss = train_fn(
        weights,
        features,
        labels,
        context.run_config["local-epochs"],
        msg.content["config"]["lr"],
        context.run_config["shuffle"],
    )
    metrics = {
        "train_loss": train_loss,
        "rounds-seen": rounds["seen"],
        "num-examples": len(labels),
    }
    content = RecordDict({"arrays": ArrayRecord([weights]), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local data."""
    (weights,) = msg.content["arrays"].to_numpy_ndarrays()
    features, labels = load_data(context.node_config["partition-id"])
    metrics = {
        "eval_loss": loss(weights, features, labels),
        "eval_acc": accuracy(weights, features, labels),
        "num-examples": len(labels),
    }
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
