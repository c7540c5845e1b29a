"""2:4 sparsity, the pattern of sparse tensor cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from rctk.compress.step import Context
from rctk.prune.zeros import hold_zeros, prunable, two_of_four
from rctk_export.registry import unknown
from rctk_kernels.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Nm24:
    """Zero two of every four consecutive input channels, those of the least magnitude.

    Zeros stay zero in the steps that follow (fine-tuning, quantization with symmetric weights), and are code 0 in an
    int8 file. TensorRT may then choose sparse kernels; on a CPU nothing gets faster. Layers whose input channels for
    each group are no multiple of four stay dense: the colour stem, depthwise convolutions.

    Attributes:
        skip: Layers that stay dense, joined by ``+``.

    Reference:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021. https://arxiv.org/abs/2104.08378
    """

    kind: ClassVar[Literal["module"]] = "module"

    skip: str = ""

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with zeros that stay, in evaluation mode; it is changed in place."""
        layers = dict(prunable(module))
        for name in filter(None, self.skip.split("+")):
            if name not in layers:
                raise unknown("2:4 layer", name, sorted(layers))
            del layers[name]
        if not layers:
            raise ModelError("prune.nm24 needs layers with a multiple of 4 input channels, and this network has none")
        with torch.no_grad():
            for layer in layers.values():
                layer.weight.mul_(two_of_four(layer.weight))
        hold_zeros(module)
        context.progress.note(f"2:4 zeros in {len(layers)} layers")
        return module.eval()
