"""Magnitude pruning: the weights that matter least become zero, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from rctk.compress.step import Context
from rctk.prune.budget import Scope
from rctk.prune.unstructured import (
    Criterion,
    Layer,
    check_budget,
    importance,
    layers_to_prune,
    least_kept,
    masks,
    tell_left_out,
)
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """Zero the weights of convolutions and linear layers that matter least, in exact numbers.

    Of ``n`` weights the whole part of ``ratio n`` is zero afterwards, and of equals the first stay. Zeros of an earlier
    step count and go first. Shapes stay: no runtime here gets faster from such zeros, files compress better. They stay
    zero in the steps that follow, and are code 0 in an int8 file. Fine-tune afterwards.

    Attributes:
        ratio: Share of the weights that goes, in (0, 1).
        scope: ``global`` compares the weights of all layers, ``local`` prunes the same share of each.
        criterion: ``magnitude`` is ``|w|``, ``grad`` is ``|dL/dw|``, ``taylor`` is ``|w dL/dw|``, with the mean
            cross-entropy ``L`` of some training images.
        floor: In the global scope, least share of its weights that a layer keeps; by default 1 %, or one weight for
            each output channel where these are more.
        skip: Layers that stay dense, joined by ``+``.
        images: Training images for ``grad`` and ``taylor``.

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, section 3.
        https://arxiv.org/abs/1506.02626. ``taylor`` without its square: Molchanov et al., "Importance Estimation for
        Neural Network Pruning", CVPR 2019, section 3. https://arxiv.org/abs/1906.10771
    """

    kind: ClassVar[Literal["module"]] = "module"

    ratio: float = 0.5
    scope: Scope = "global"
    criterion: Criterion = "magnitude"
    floor: float | None = None
    skip: str = ""
    images: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise OptionError(f"ratio is the share that is pruned away, above 0 and below 1; got {self.ratio:g}")
        if self.floor is not None and not 0 <= self.floor < 1:
            raise OptionError(f"floor is the least share that a layer keeps, from 0 to below 1; got {self.floor:g}")
        if self.floor is not None and self.scope == "local":
            raise OptionError(
                "floor is for scope=global; with scope=local every layer keeps the share 1 - ratio; leave floor out"
            )
        if self.images < 1:
            raise OptionError(f"images must be at least 1, got {self.images}")

    def check_ready(self, module: nn.Module, context: Context) -> None:  # noqa: ARG002  # its layers are all it asks
        """Refuse layers to skip that the network does not have, and a ratio that the floors do not leave room for."""
        self._least(layers_to_prune(module, self.skip))

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with zeros, in evaluation mode; it is changed in place."""
        tell_left_out(module, context.progress)
        self.prune(module, context)
        return module.eval()

    def prune(self, module: nn.Module, context: Context) -> None:
        """Zero weights of ``module``, and say how many are left."""
        layers = layers_to_prune(module, self.skip)
        least = self._least(layers)
        split = context.train.sample(self.images, context.seed)
        scores = importance(module, layers, self.criterion, split, context.input)
        keep = masks(scores, ratio=self.ratio, scope=self.scope, least=least)
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.masked_fill_(~keep[name], 0)
        context.progress.note(densities(layers))

    def _least(self, layers: Mapping[str, Layer]) -> dict[str, int]:
        """Return how many weights each layer keeps in any case."""
        if self.scope == "local":
            return dict.fromkeys(layers, 0)
        least = {name: least_kept(layer.weight, self.floor) for name, layer in layers.items()}
        check_budget(least, sum(layer.weight.numel() for layer in layers.values()), self.ratio)
        return least


def densities(layers: Mapping[str, Layer]) -> str:
    """Say in one line how dense the densest and the sparsest layer are.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.data = torch.tensor([[0.0, 1.0]])
        >>> densities({"fc": layer, "fc2": nn.Linear(2, 1)})
        'weights that are not zero: 50.0% of fc, the sparsest layer, to 100.0% of fc2'
    """
    shares = {name: float(layer.weight.count_nonzero()) / layer.weight.numel() for name, layer in layers.items()}
    low, high = min(shares, key=lambda name: shares[name]), max(shares, key=lambda name: shares[name])
    return f"weights that are not zero: {shares[low]:.1%} of {low}, the sparsest layer, to {shares[high]:.1%} of {high}"
