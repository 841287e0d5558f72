"""Torch twin of a `ModelSpec`: central training, simulation, and the oracle LiteRT is held to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from device_runtime.errors import FlintError
from modeling.spec import (
    Dense,
    Embedding,
    FactorisedEmbedding,
    HashedBag,
    Layer,
    ModelSpec,
    TextConvolution,
)


class ForeignParameters(FlintError):
    """A file of trained parameters does not belong to the model it is imported for."""

    code = "FLN-1504"


class DenseModule(nn.Module):
    """`Dense`; the kernel is ``(inputs, outputs)``, as on the wire."""

    def __init__(self, layer: Dense) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(layer.inputs, layer.outputs))
        self.bias = nn.Parameter(torch.zeros(layer.outputs))
        self._relu = layer.activation == "relu"

    def forward(self, inputs: Tensor) -> Tensor:
        """``activation(inputs @ kernel + bias)``, shape ``(batch, outputs)``."""
        outputs = torch.addmm(self.bias, inputs, self.kernel)
        return torch.relu(outputs) if self._relu else outputs


class HashedBagModule(nn.Module):
    """`HashedBag`; the table is ``(buckets, outputs)``, as on the wire."""

    def __init__(self, layer: HashedBag) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(layer.buckets, layer.outputs))
        self.bias = nn.Parameter(torch.zeros(layer.outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """``relu(sum of rows / sqrt(count) + bias)``, shape ``(batch, outputs)``.

        Args:
            inputs: Bucket ids, shape ``(batch, slots)``; -1 marks an unused slot.
        """
        used = (inputs >= 0).to(self.table.dtype)
        count = used.sum(dim=1, keepdim=True)
        slot_weight = used * torch.rsqrt(count.clamp(min=1.0))
        pooled = functional.embedding_bag(
            inputs.clamp(min=0), self.table, per_sample_weights=slot_weight, mode="sum"
        )
        return torch.relu(pooled + self.bias)


class EmbeddingModule(nn.Module):
    """`Embedding`; a frozen table is a buffer, so it is neither trained nor in a state dict."""

    table: Tensor

    def __init__(self, layer: Embedding) -> None:
        super().__init__()
        table = torch.zeros(layer.rows, layer.width)
        if layer.frozen:
            self.register_buffer("table", table, persistent=False)
        else:
            self.table = nn.Parameter(table)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows side by side, shape ``(batch, slots * width)``; zeros where an id is -1."""
        return _looked_up(inputs, self.table).flatten(1)


class FactorisedEmbeddingModule(nn.Module):
    """`FactorisedEmbedding`."""

    def __init__(self, layer: FactorisedEmbedding) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(layer.rows, layer.rank))
        self.projection = nn.Parameter(torch.zeros(layer.rank, layer.width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows side by side, shape ``(batch, slots * width)``; zeros where an id is -1."""
        return (_looked_up(inputs, self.table) @ self.projection).flatten(1)


class TextConvolutionModule(nn.Module):
    """`TextConvolution`, by torch's own convolution and maximum."""

    def __init__(self, layer: TextConvolution) -> None:
        super().__init__()
        self._layer = layer
        for window in layer.windows:
            kernel = torch.zeros(window * layer.width, layer.filters)
            self.register_parameter(f"kernel_{window}", nn.Parameter(kernel))
            self.register_parameter(f"bias_{window}", nn.Parameter(torch.zeros(layer.filters)))

    def forward(self, inputs: Tensor) -> Tensor:
        """``relu(max over positions)``, shape ``(batch, windows * filters)``."""
        layer = self._layer
        words = inputs.view(-1, layer.tokens, layer.width).transpose(1, 2)
        pooled = []
        for window in layer.windows:
            kernel = self.get_parameter(f"kernel_{window}")
            weight = kernel.view(window, layer.width, layer.filters).permute(2, 1, 0)
            bias = self.get_parameter(f"bias_{window}")
            pooled.append(functional.conv1d(words, weight, bias).amax(dim=2))
        return torch.relu(torch.cat(pooled, dim=1))


class TorchModel(nn.Sequential):
    """A model's layers by name; ``parameters()`` are in wire order."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        for layer in spec.layers:
            self.add_module(layer.name, _module_of(layer))


def build_torch(spec: ModelSpec, frozen: Sequence[NDArray[np.float32]] | None = None) -> TorchModel:
    """Build the torch twin, all trained parameters zero; see `load_parameters`.

    Args:
        frozen: Frozen arrays, in the order of ``spec.frozen_parameters``; None means
            ``spec.frozen_arrays()``.

    Raises:
        ValueError: If there are more or fewer frozen arrays than the model has.
        RuntimeError: If a shape is not its parameter's.
    """
    model = TorchModel(spec)
    arrays = spec.frozen_arrays() if frozen is None else frozen
    for buffer, array in zip(model.buffers(), arrays, strict=True):
        buffer.copy_(torch.from_numpy(np.array(array, np.float32)))
    return model


def load_parameters(module: TorchModel, arrays: Sequence[NDArray[np.float32]]) -> None:
    """Copy arrays, in wire order, into a model.

    Raises:
        ValueError: If there are more or fewer arrays than parameters.
        RuntimeError: If a shape is not its parameter's.
    """
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.array(array, np.float32)))


def dump_parameters(module: TorchModel) -> list[NDArray[np.float32]]:
    """Copy a model's parameters out, in wire order."""
    return [parameter.detach().numpy().copy() for parameter in module.parameters()]


def weighted_loss(logits: Tensor, labels: Tensor, sample_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy ``sum(w l) / sum(w)``, as the ``train`` signature descends it.

    A record's loss is the sum over its tasks.

    Args:
        logits: Shape ``(batch, tasks)``.
        labels: Shape ``(batch, tasks)``.
        sample_weight: Shape ``(batch,)``; 0 masks a record. All 0 gives loss 0.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = sample_weight.sum()
    return (losses.sum(dim=1) * sample_weight).sum() / torch.where(total > 0, total, 1.0)


def save_state_dict(spec: ModelSpec, arrays: Sequence[NDArray[np.float32]], path: Path) -> None:
    """Write parameters, in wire order, as a torch state dict: ``hidden.kernel``, ..."""
    module = build_torch(spec)
    load_parameters(module, arrays)
    torch.save(module.state_dict(), path)


def load_state_dict(spec: ModelSpec, path: Path) -> list[NDArray[np.float32]]:
    """Read a torch state dict of this model; no code in the file is run.

    Returns:
        Parameters in wire order.

    Raises:
        ForeignParameters: If the file is no state dict, not one of this model, or not finite.
    """
    wanted = {p.name.replace("/", "."): p.shape for p in spec.parameters}
    shown = ", ".join(f"{name} {shape}" for name, shape in wanted.items())
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ForeignParameters(
            f"{path} cannot be read ({error.strerror}); give the path of a torch state dict"
        ) from error
    except Exception as error:  # torch.load raises many kinds for one thing: not such a file
        raise ForeignParameters(
            f"{path} is not a torch state dict ({type(error).__name__}); "
            "write it with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ForeignParameters(
            f"{path} holds a {type(found).__name__}, not a state dict of {shown}; "
            "write it with torch.save(model.state_dict(), path)"
        )
    shapes = {str(name): tuple(tensor.shape) for name, tensor in found.items()}
    if shapes != wanted:
        held = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
        raise ForeignParameters(
            f"{path} holds {held}; {spec.name} has {shown}; "
            "train modeling.torch_models.build_torch's model"
        )
    arrays = [found[name].to(torch.float32).numpy().copy() for name in wanted]
    for name, array in zip(wanted, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ForeignParameters(
                f"{path} holds NaN or infinite values in {name}; train with a lower learning rate"
            )
    return arrays


def _looked_up(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of the ids, shape ``(batch, slots, columns of the table)``; zeros for -1."""
    used = (ids >= 0).to(table.dtype).unsqueeze(2)
    return functional.embedding(ids.clamp(min=0), table) * used


def _module_of(layer: Layer) -> nn.Module:
    match layer:
        case Dense():
            return DenseModule(layer)
        case HashedBag():
            return HashedBagModule(layer)
        case Embedding():
            return EmbeddingModule(layer)
        case FactorisedEmbedding():
            return FactorisedEmbeddingModule(layer)
        case TextConvolution():
            return TextConvolutionModule(layer)
