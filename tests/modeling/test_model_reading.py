"""Which layers of a user's model are read, and what is said of those that are not."""

import numpy as np
import pytest
import torch
from torch import nn

from modeling.keras_reading import read_keras
from modeling.model_reading import UnsupportedLayer
from modeling.quiet_tensorflow import tf
from modeling.spec import Dense, Embedding, TextConvolution
from modeling.torch_models import build_torch, load_parameters
from modeling.torch_reading import read_torch
from tests.modeling.user_models import Functional, branching, residual, without_relu

keras = tf.keras
layers = keras.layers


def text_net(net, x):
    words = net.words(x).permute(0, 2, 1)
    pooled = [torch.relu(conv(words).amax(-1)) for conv in (net.narrow, net.wide)]
    return net.last(torch.cat(pooled, 1))


def mlp(net, x):
    return net.last(net.second(net.first(x).relu().flatten(1)))


READABLE = {
    "sequential": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), None),
    "nested": (nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Linear(4, 1)), None),
    "embedding": (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 1)), None),
    "functional mlp": (Functional(mlp), None),
    "functional text": (Functional(text_net), (7,)),
    "pooling module": (
        nn.Sequential(
            nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Identity(), nn.Dropout(0.0)),
            nn.Linear(28, 1),
        ),
        (7,),
    ),
}


@pytest.mark.parametrize(("module", "shape"), READABLE.values(), ids=READABLE)
def test_the_twin_of_a_read_module_computes_what_the_module_does(module, shape):
    read = read_torch("mine", module, shape)
    twin = build_torch(read.spec, read.frozen)
    load_parameters(twin, read.parameters())
    generator = np.random.default_rng(0)
    x = (
        generator.integers(0, 9, (5, *read.spec.input.shape), np.int32)
        if read.spec.ids
        else generator.standard_normal((5, *read.spec.input.shape), np.float32)
    )
    with torch.no_grad():
        expected, found = module(torch.from_numpy(x)), twin(torch.from_numpy(x))
    torch.testing.assert_close(found, expected)
    assert expected.shape[1:] == read.spec.label_shape


def test_a_text_module_is_read_into_our_layers():
    net = Functional(text_net)
    net.words.weight.requires_grad = False
    read = read_torch("mine", net, (7,))
    assert read.spec.layers == (
        Embedding("words", 9, 4, slots=7, frozen=True),
        TextConvolution("convolution", 7, 4, windows=(2, 3), filters=2),
        Dense("last", 4, 1, "none"),
    )
    assert [array.shape for array in read.frozen] == [(9, 4)]
    assert [a.shape for a in read.parameters()] == [p.shape for p in read.spec.parameters]


def test_several_outputs_are_several_tasks():
    spec = read_torch("mine", nn.Sequential(nn.Linear(6, 3))).spec
    assert (spec.tasks, spec.label_shape) == (("task_0", "task_1", "task_2"), (3,))
    assert spec.layers[0].name == "layer_0"


REFUSED = {
    "normalisation": (
        nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
        "layer 1: devices cannot train BatchNorm1d; leave it out and standardise the inputs",
    ),
    "dropout": (
        nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 1)),
        "layer 1: devices cannot train Dropout; leave it out",
    ),
    "another activation": (
        nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)),
        "cannot train Tanh; use relu",
    ),
    "probabilities": (
        nn.Sequential(nn.Linear(6, 1), nn.Sigmoid()),
        "cannot train Sigmoid; use relu between layers, and end with logits",
    ),
    "relu at the end": (
        nn.Sequential(nn.Linear(6, 1), nn.ReLU()),
        "mine: it does not give logits; end with a dense layer without activation",
    ),
    "recurrence": (
        nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 4), nn.Linear(4, 1)),
        "cannot train LSTM; use convolutions over the tokens",
    ),
    "no bias": (nn.Sequential(nn.Linear(6, 1, bias=False)), "without bias; leave bias=True"),
    "padding_idx": (
        nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Flatten(), nn.Linear(8, 1)),
        "padding_idx or max_norm; leave both out",
    ),
    "unflattened": (
        nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 1)),
        r"a dense layer over an embedding, \(tokens, width\); flatten it first",
    ),
    "branches on values": (Functional(branching), "mine: forward cannot be followed"),
    "two ways": (Functional(residual), "cannot train add of two values; write forward as"),
    "unknown tokens": (Functional(without_relu), r"write it beside the model: input_shape = \(40,"),
    "something else": (
        nn.Sequential(nn.Linear(6, 4), nn.PixelShuffle(2), nn.Linear(4, 1)),
        "cannot train PixelShuffle; use dense layers with relu or no activation",
    ),
}


@pytest.mark.parametrize(("module", "said"), REFUSED.values(), ids=REFUSED)
def test_what_devices_cannot_train_is_named_with_what_to_use_instead(module, said):
    with pytest.raises(UnsupportedLayer, match=f"{said}.*FLN-1505"):
        read_torch("mine", module)


def test_a_convolution_whose_maxima_are_not_cut_at_0_is_refused():
    with pytest.raises(UnsupportedLayer, match="without relu; apply relu to its scores"):
        read_torch("mine", Functional(without_relu), (7,))


def test_a_convolution_along_the_width_instead_of_the_tokens_is_refused():
    net = Functional(lambda net, x: net.last(torch.relu(net.wide(net.words(x))).amax(2)))
    with pytest.raises(UnsupportedLayer, match=r"turned round with transpose\(1, 2\)"):
        read_torch("mine", net, (4,))


def test_a_layer_in_two_places_is_refused():
    net = Functional(lambda net, x: net.last(net.second(net.second(net.first(x)))))
    with pytest.raises(UnsupportedLayer, match="second: devices cannot train a layer used twice"):
        read_torch("mine", net)


KERAS_REFUSED = {
    "activation": ([layers.Dense(4, activation="gelu"), layers.Dense(1)], "gelu; use relu"),
    "normalisation": ([layers.BatchNormalization(), layers.Dense(1)], "BatchNormalization; leave"),
    "no bias": ([layers.Dense(1, use_bias=False)], "without bias; leave use_bias=True"),
    "nested": (
        [keras.Sequential([layers.Dense(4)]), layers.Dense(1)],
        "Sequential; put its layers into the model itself",
    ),
    "leaky": ([layers.Dense(4), layers.LeakyReLU(), layers.Dense(1)], "LeakyReLU; use relu"),
}


@pytest.mark.parametrize(("stack", "said"), KERAS_REFUSED.values(), ids=KERAS_REFUSED)
def test_keras_layers_that_devices_cannot_train_are_refused_too(stack, said):
    with pytest.raises(UnsupportedLayer, match=said):
        read_keras("mine", keras.Sequential([keras.Input((6,)), *stack]))


def test_a_subclassed_keras_model_cannot_be_followed():
    class Mine(keras.Model):
        pass

    with pytest.raises(UnsupportedLayer, match=r"make it a keras\.Sequential with an Input"):
        read_keras("mine", Mine())


def test_a_sequential_keras_model_computes_what_its_twin_does():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), layers.ReLU(), layers.Dense(2, activation="linear")]
    )
    read = read_keras("mine", model)
    twin = build_torch(read.spec)
    load_parameters(twin, read.parameters())
    x = np.random.default_rng(0).standard_normal((5, 6), np.float32)
    with torch.no_grad():
        found = twin(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, model(x).numpy(), atol=1e-6)
