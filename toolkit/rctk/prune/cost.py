"""What a network costs, counted from the module as it is; whoever changed it has no say."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rctk.models.selection import Selection
from rctk.prune.zeros import fits_two_of_four
from rctk_export.input_spec import InputSpec


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Size and work of a module.

    Attributes:
        parameters: Trained values stored, BatchNorm's included; the 0 and 1 of a :class:`Selection` are none.
        nonzero: Those among them that are not 0.
        macs: Multiplications with addition of convolutions and matrix products for one image, zeros included.
        size_bytes: Of all tensors of the state dict, buffers included.
    """

    parameters: int
    nonzero: int
    macs: int
    size_bytes: int

    @property
    def zeros(self) -> float:
        """Share of the parameters that are 0."""
        return 1 - self.nonzero / self.parameters if self.parameters else 0.0

    def as_dict(self) -> dict[str, int]:
        """Return plain JSON values."""
        return asdict(self)


def cost(module: nn.Module, spec: InputSpec) -> Cost:
    """Count the parameters, multiplications and bytes of ``module``; it is left as it is.

    Convolutions and matrix products are counted where torch runs them, whatever the module calls itself.

    Args:
        module: Maps normalised images ``(N, C, H, W)`` to logits.
        spec: Shape of its images.
    """
    trained = [parameter for _, parameter in _trained(module)]
    stored = module.state_dict().values()
    return Cost(
        parameters=sum(parameter.numel() for parameter in trained),
        nonzero=sum(int(parameter.count_nonzero()) for parameter in trained),
        macs=macs(module, spec),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
    )


class TensorRow(NamedTuple):
    """One trained tensor.

    Attributes:
        name: In the state dict.
        shape: ``(O, I, *K)`` for a weight.
        parameters: Values in it.
        zeros: Share of them that are 0.
        two_of_four: Whether at least two of every four input channels are 0.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    zeros: float
    two_of_four: bool


def tensors(module: nn.Module) -> list[TensorRow]:
    """List what is trained in ``module``, in its order."""
    return [
        TensorRow(
            name=name,
            shape=tuple(value.shape),
            parameters=value.numel(),
            zeros=1 - int(value.count_nonzero()) / max(value.numel(), 1),
            two_of_four=fits_two_of_four(value),
        )
        for name, value in _trained(module)
    ]


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    fixed = {id(layer.weight) for layer in module.modules() if isinstance(layer, Selection)}
    return [(name, value) for name, value in module.named_parameters() if id(value) not in fixed]


def macs(module: nn.Module, spec: InputSpec) -> int:
    """Return the multiplications with addition of one image."""
    shadow = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty((1, *spec.shape), device="meta"))
    return int(counter.get_total_flops()) // 2
