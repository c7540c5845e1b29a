"""What a network costs, counted from the module as it is; whoever changed it has no say."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rctk.models.selection import Selection
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
    fixed = {id(layer.weight) for layer in module.modules() if isinstance(layer, Selection)}
    trained = [parameter for parameter in module.parameters() if id(parameter) not in fixed]
    tensors = module.state_dict().values()
    return Cost(
        parameters=sum(parameter.numel() for parameter in trained),
        nonzero=sum(int(parameter.count_nonzero()) for parameter in trained),
        macs=macs(module, spec),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def macs(module: nn.Module, spec: InputSpec) -> int:
    """Return the multiplications with addition of one image."""
    shadow = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty((1, *spec.shape), device="meta"))
    return int(counter.get_total_flops()) // 2
