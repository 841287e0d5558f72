"""The ClientApp of `flb1_flower`, as one writes it; a worker keeps model and records."""

import functools
import os
from pathlib import Path

import torch
from flb1_rounds import Workload
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

app = ClientApp()


@functools.cache
def kept() -> tuple[Workload, nn.Sequential]:
    torch.set_num_threads(1)
    work = Workload.load(Path(os.environ["FLB1_WORKLOAD"]))
    layers: list[nn.Module] = []
    for kernel, _ in work.parameters:
        layers += [nn.Linear(*kernel.shape), nn.ReLU()]
    return work, nn.Sequential(*layers[:-1])


@app.train()
def train(message: Message, context: Context) -> Message:
    work, net = kept()
    received = message.content["arrays"].to_numpy_ndarrays()
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), received, strict=True):
            parameter.copy_(torch.from_numpy(array))
    rows = work.rows(int(context.node_config["partition-id"]))
    x, y = torch.from_numpy(work.x[rows]), torch.from_numpy(work.y[rows])
    optimizer = torch.optim.SGD(net.parameters(), lr=work.learning_rate)
    for _ in range(work.local_epochs):
        batches = zip(x.split(work.batch_size), y.split(work.batch_size), strict=True)
        for features, labels in batches:
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(features), labels).backward()
            optimizer.step()
    sent = [parameter.detach().numpy() for parameter in net.parameters()]
    answer = {"arrays": ArrayRecord(sent), "metrics": MetricRecord({"num-examples": len(x)})}
    return Message(content=RecordDict(answer), reply_to=message)
