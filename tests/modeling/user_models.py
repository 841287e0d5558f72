"""Models as users write them: torch modules and, by text, files of either framework."""

import torch
from torch import nn

TEXT_CNN_FILE = """
import torch
from torch import nn

input_shape = (12,)


class TextNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, 8)
        self.words.weight.requires_grad = False
        self.convolutions = nn.ModuleList([nn.Conv1d(8, 6, window) for window in (2, 3)])
        self.hidden = nn.Linear(12, 5)
        self.out = nn.Linear(5, 1)

    def forward(self, ids):
        words = self.words(ids).transpose(1, 2)
        pooled = [torch.relu(c(words)).max(dim=2)[0] for c in self.convolutions]
        return self.out(torch.relu(self.hidden(torch.cat(pooled, dim=1))))


def build_model():
    print("building")
    return TextNet()
"""

KERAS_FILE = """
import keras

ids = keras.Input((12,), dtype="int32")
words = keras.layers.Embedding(100, 8)(ids)
pooled = [
    keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(6, window, activation="relu")(words))
    for window in (2, 3)
]
hidden = keras.layers.Dense(5, activation="relu")(keras.layers.Concatenate()(pooled))
model = keras.Model(ids, keras.layers.Dense(2)(hidden))
"""


class Functional(nn.Module):
    """A module whose forward is given; its layers are those the cases need."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.second = nn.Linear(4, 4)
        self.last = nn.Linear(4, 1)
        self.words = nn.Embedding(9, 4)
        self.narrow = nn.Conv1d(4, 2, 2)
        self.wide = nn.Conv1d(4, 2, 3)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


def branching(net, x):
    """What tracing cannot follow."""
    return net.last(net.first(x)) if x.sum() > 0 else x


def residual(net, x):
    """Two ways that meet."""
    first = net.first(x)
    return net.last(first + net.second(first))


def without_relu(net, x):
    """A convolution whose maxima are not cut at 0."""
    return net.last(torch.amax(net.wide(net.words(x).transpose(1, 2)), dim=2))
