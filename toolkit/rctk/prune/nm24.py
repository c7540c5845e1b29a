"""2:4 sparsity, the pattern of sparse tensor cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from rctk.compress.step import Context
from rctk.prune.zeros import hold_zeros, prunable, two_of_four
from rctk_export.registry import unknown
from rctk_kernels.errors import ModelError, OptionError


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
    role: ClassVar[str] = "pattern"

    skip: str = ""

    def check_ready(self, module: nn.Module, context: Context) -> None:  # noqa: ARG002  # its layers are all it asks
        """Refuse layers to skip that cannot have the pattern, and a network where none can."""
        self._layers(module)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with zeros that stay, in evaluation mode; it is changed in place."""
        layers = self._layers(module)
        with torch.no_grad():
            for layer in layers.values():
                layer.weight.mul_(two_of_four(layer.weight))
        hold_zeros(module)
        context.progress.note(f"2:4 zeros in {len(layers)} layers")
        return module.eval()

    def _layers(self, module: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
        layers = dict(prunable(module))
        if not layers:
            raise ModelError("prune.nm24 needs layers with a multiple of 4 input channels, and this network has none")
        names = sorted(layers)
        for name in filter(None, self.skip.split("+")):
            if name not in names:
                raise unknown("2:4 layer", name, names)
            layers.pop(name, None)
        if not layers:
            raise OptionError("prune.nm24: skip names every layer that could have the pattern; leave one of them out")
        return layers
