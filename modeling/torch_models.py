"""Torch twin of a `ModelSpec`: central training, simulation, and the oracle LiteRT is held to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from device_runtime.errors import FlintError
from modeling.spec import Dense, HashedBag, Layer, ModelSpec


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


class TorchModel(nn.Sequential):
    """A model's layers by name; ``parameters()`` are in wire order."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        for layer in spec.layers:
            self.add_module(layer.name, _module_of(layer))


def build_torch(spec: ModelSpec) -> TorchModel:
    """Build the torch twin, all parameters zero; see `load_parameters`."""
    return TorchModel(spec)


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

    Args:
        logits: Shape ``(batch, 1)``.
        labels: Shape ``(batch, 1)``.
        sample_weight: Shape ``(batch,)``; 0 masks a record. All 0 gives loss 0.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = sample_weight.sum()
    return (losses[:, 0] * sample_weight).sum() / torch.where(total > 0, total, 1.0)


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


def _module_of(layer: Layer) -> nn.Module:
    return HashedBagModule(layer) if isinstance(layer, HashedBag) else DenseModule(layer)
