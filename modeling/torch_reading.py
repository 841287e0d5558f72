"""A user's torch module, read by tracing its ``forward`` (torch.fx, Reed et al., MLSys 2022)."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional

from modeling import model_reading as reading
from modeling.model_reading import INPUT, Arrays, ReadModel, UnsupportedLayer, Value, unsupported

_RELU: tuple[object, ...] = (torch.relu, functional.relu, "relu")
_FLATTEN: tuple[object, ...] = (torch.flatten, "flatten")
_MAXIMUM: tuple[object, ...] = (torch.amax, torch.max, "amax", "max")
_TURN_ROUND: tuple[object, ...] = (torch.transpose, torch.permute, "transpose", "permute")
_LAST_TWO: tuple[object, ...] = ((1, 2), (2, 1), (-1, -2), (-2, -1), (0, 2, 1), ((0, 2, 1),))
_SIDE_BY_SIDE: tuple[object, ...] = (torch.cat, torch.concat)
_SQUEEZE: tuple[object, ...] = (torch.squeeze, "squeeze")


def read_torch(
    name: str, module: nn.Module, input_shape: tuple[int, ...] | None = None
) -> ReadModel:
    """Read a module of layers that devices can train.

    Args:
        name: Of the spec.
        input_shape: Of a record; needed where the layers leave the number of tokens open.

    Raises:
        UnsupportedLayer: If there is another layer or operation; names it and what to use instead.
    """
    try:
        graph = fx.symbolic_trace(module).graph
    except Exception as error:  # forward is the user's code: anything may come out of it
        said = " ".join(str(error).split())
        raise UnsupportedLayer(
            f"{name}: forward cannot be followed ({type(error).__name__}: {said}); "
            "write it as a straight sequence of layers, without branches on values"
        ) from error
    return _Walk(name, module, _slots(module, input_shape)).read(graph)


class _Walk:
    """One pass over a traced graph; what each node gives, by node."""

    def __init__(self, name: str, module: nn.Module, slots: int | None) -> None:
        self._name = name
        self._modules = dict(module.named_modules())
        self._slots = slots
        self._values: dict[fx.Node, Value] = {}

    def read(self, graph: fx.Graph) -> ReadModel:
        """Read the graph."""
        for node in graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise unsupported(
                        "the output", "several outputs", "return one tensor of logits"
                    )
                return reading.read_model(self._name, self._values[node.args[0]])
            self._values[node] = self._value(node)
        raise UnsupportedLayer(
            f"{self._name}: forward does not return one tensor; return the logits alone, of "
            "several tasks side by side"
        )

    def _value(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            if INPUT in self._values.values():
                raise unsupported(node.name, "a second input", "give all features as one tensor")
            return INPUT
        if node.op == "call_module":
            return self._of_module(node, str(node.target))
        if node.op == "get_attr":
            raise unsupported(str(node.target), "a bare parameter", "use nn.Linear and the like")
        return self._of_function(node)

    def _of_module(self, node: fx.Node, where: str) -> Value:
        module, value = self._modules[where], self._argument(node)
        match module:
            case nn.Linear():
                shape = (module.in_features, module.out_features)
                found = reading.dense(value, where, shape, _linear(module, where))
            case nn.ReLU():
                found = reading.relu(value, where)
            case nn.Flatten(start_dim=1, end_dim=-1):
                found = reading.flatten(value, where)
            case nn.Identity() | nn.Dropout(p=0.0):
                found = value
            case nn.Embedding():
                found = self._embedding(value, where, module)
            case nn.Conv1d():
                arrays = _convolution(module, where)
                window, filters = module.kernel_size[0], module.out_channels
                found = reading.convolution(value, where, window, filters, arrays, along_last=True)
            case nn.AdaptiveMaxPool1d(output_size=1 | (1,)):
                found = reading.maximum(value, where)
            case _:
                raise unsupported(where, type(module).__name__)
        return found

    def _of_function(self, node: fx.Node) -> Value:
        where, target = node.name, node.target
        if target in _SIDE_BY_SIDE and _dimension(node) in {1, -1}:
            parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
            return reading.side_by_side([self._values[part] for part in parts], where)
        value = self._argument(node)
        if target in _RELU:
            return reading.relu(value, where)
        if target in _FLATTEN and node.args[1:] in ((1,), (1, -1)):
            return reading.flatten(value, where)
        if target in _TURN_ROUND and node.args[1:] in _LAST_TWO:
            return reading.turn_round(value, where)
        if target in _MAXIMUM and _dimension(node) in {2, -1}:
            return reading.maximum(value, where)
        if value.form is reading.Form.POOLED and self._takes_values_of_maximum(node):
            return value
        raise unsupported(where, target if isinstance(target, str) else target.__name__)

    def _takes_values_of_maximum(self, node: fx.Node) -> bool:
        """Whether it is the end of ``max(dim=2)[0]``, ``.values``, or a squeeze after pooling."""
        if node.target is operator.getitem:
            return node.args[1:] == (0,)
        if node.target is getattr:
            return node.args[1:] == ("values",)
        return node.target in _SQUEEZE and _dimension(node) in {2, -1}

    def _embedding(self, value: Value, where: str, module: nn.Embedding) -> Value:
        if module.padding_idx is not None or module.max_norm is not None:
            raise unsupported(
                where,
                "an Embedding with padding_idx or max_norm",
                "leave both out: devices mark an unused slot with id -1, which gives zeros",
            )
        if self._slots is None:
            raise UnsupportedLayer(
                f"{self._name}: how many ids a record has does not follow from the layers; "
                "write it beside the model: input_shape = (40,)"
            )
        return reading.embedding(
            value,
            where,
            lambda: _array(module.weight),
            self._slots,
            frozen=not module.weight.requires_grad,
        )

    def _argument(self, node: fx.Node) -> Value:
        first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        if not isinstance(first, fx.Node):
            raise unsupported(node.name, str(node.target), "apply layers to the input only")
        others = [a for a in node.args[1:] if isinstance(a, fx.Node)]
        if others:
            name = getattr(node.target, "__name__", str(node.target))
            raise unsupported(
                node.name, f"{name} of two values", "write forward as a sequence of layers"
            )
        return self._values[first]


def _slots(module: nn.Module, input_shape: tuple[int, ...] | None) -> int | None:
    """Ids of a record: as given, or what the first dense layer over the embedding takes."""
    if input_shape is not None:
        return input_shape[0]
    kinds = list(module.modules())
    tables = [m for m in kinds if isinstance(m, nn.Embedding)]
    linear = [m for m in kinds if isinstance(m, nn.Linear)]
    if not tables or not linear or any(isinstance(m, nn.Conv1d) for m in kinds):
        return None
    return linear[0].in_features // tables[0].embedding_dim


def _linear(module: nn.Linear, where: str) -> Callable[[], Arrays]:
    bias = _trained(module, where)
    return lambda: [_array(module.weight.t()), _array(bias)]


def _convolution(module: nn.Conv1d, where: str) -> Callable[[], Arrays]:
    found = (module.stride, module.padding, module.dilation, module.groups)
    if found != ((1,), (0,), (1,), 1):
        raise unsupported(
            where,
            "a Conv1d with stride, padding, dilation or groups",
            "leave them at their defaults",
        )
    bias = _trained(module, where)
    return lambda: [
        _array(module.weight.permute(2, 1, 0).reshape(-1, module.out_channels)),
        _array(bias),
    ]


def _trained(module: nn.Linear | nn.Conv1d, where: str) -> Tensor:
    """The layer's bias."""
    kind = type(module).__name__
    if module.bias is None:
        raise unsupported(where, f"a {kind} without bias", "leave bias=True")
    if not all(parameter.requires_grad for parameter in module.parameters()):
        raise unsupported(where, f"a frozen {kind}", "only an Embedding can be frozen")
    return module.bias


def _dimension(node: fx.Node) -> object:
    if "dim" in node.kwargs:
        return node.kwargs["dim"]
    return node.args[1] if len(node.args) > 1 else None


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().numpy(), np.float32)
