"""Which single weights go, in exact numbers; what methods that prune them have in common."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.models.selection import Selection
from rctk.progress import Progress
from rctk.prune.budget import Scope
from rctk.prune.zeros import owns_weight
from rctk.train.normalised import Normalised
from rctk_export.input_spec import InputSpec
from rctk_export.registry import unknown
from rctk_kernels.errors import ModelError, OptionError

Criterion = Literal["magnitude", "grad", "taylor"]
Layer = nn.Conv1d | nn.Conv2d | nn.Linear
LEAST = 0.01
"""Share of its weights that a layer keeps unless another floor is asked for."""
MINIBATCH = 64


def layers_to_prune(module: nn.Module, skip: str = "") -> dict[str, Layer]:
    """Return the layers whose weights can be pruned one by one, by name.

    Biases and BatchNorm are never pruned. A weight that is computed from others, as by ``weight_norm``, would not keep
    its zeros and is left out, as is a fixed :class:`Selection`.

    Args:
        module: The network.
        skip: Names of layers to leave out, joined by ``+``.
    """
    layers = {name: layer for name, layer in module.named_modules() if _prunable(layer)}
    if not layers:
        raise ModelError("this network has no convolution or linear layer with weights of its own to prune")
    skipped = set(filter(None, skip.split("+")))
    for name in sorted(skipped - layers.keys()):
        raise unknown("layer with weights", name, sorted(layers))
    if not layers.keys() - skipped:
        raise OptionError("skip names every layer that could be pruned; leave one of them out")
    return {name: layer for name, layer in layers.items() if name not in skipped}


def left_out(module: nn.Module) -> list[str]:
    """Return the names of layers whose weights are left as they are, apart from fixed ones."""
    weighted = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001  # transposed convolutions too
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, weighted) and not isinstance(layer, Selection) and not _prunable(layer)
    ]


def _prunable(layer: nn.Module) -> TypeGuard[Layer]:
    return isinstance(layer, Layer) and not isinstance(layer, Selection) and owns_weight(layer)


def tell_left_out(module: nn.Module, progress: Progress) -> None:
    """Say which layers no ratio counts."""
    names = left_out(module)
    if names:
        progress.note(
            f"{', '.join(names)}: weights computed from others, or of another kind of layer, stay and do not count"
        )


def largest(scores: Tensor, count: int) -> Tensor:
    """Return where the ``count`` largest scores are, the first of equals; boolean, of the same shape.

    Example:
        >>> largest(torch.tensor([1.0, 3.0, 1.0]), 2).tolist()
        [True, True, False]
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    keep = torch.zeros_like(order, dtype=torch.bool)
    keep[order[:count]] = True
    return keep.view(scores.shape)


def kept(total: int, ratio: float) -> int:
    """Return how many of ``total`` stay when the whole part of ``ratio * total`` goes.

    Example:
        >>> kept(100, 0.29), kept(10, 0.55)  # 0.29 * 100 is a little below 29 in floating point
        (71, 5)
    """
    return total - math.floor(round(ratio * total, 6))


def least_kept(weight: Tensor, floor: float | None) -> int:
    """Return how many weights of ``(O, ...)`` a layer keeps at least.

    Args:
        weight: Of the layer.
        floor: A share, rounded up; ``None`` for 1 %, or one for each output channel where these are more.

    Example:
        >>> wide, deep, small = torch.ones(20, 60), torch.ones(4, 300), torch.ones(4, 5)
        >>> least_kept(wide, None), least_kept(deep, None), least_kept(small, 0.21)
        (20, 12, 5)
    """
    if floor is not None:
        return math.ceil(round(floor * weight.numel(), 6))
    return max(math.ceil(LEAST * weight.numel()), len(weight))


def check_budget(least: Mapping[str, int], total: int, ratio: float) -> None:
    """Refuse a ratio that leaves fewer weights than the floors of all layers keep."""
    budget, together = kept(total, ratio), sum(least.values())
    if together > budget:
        raise OptionError(
            f"ratio {ratio:g} leaves {budget:,} of {total:,} weights, and the floors of {len(least)} layers keep "
            f"{together:,}; lower ratio, or set a lower floor, such as floor={budget / total / 2:.1g}"
        )


def masks(scores: Mapping[str, Tensor], *, ratio: float, scope: Scope, least: Mapping[str, int]) -> dict[str, Tensor]:
    """Return where to keep weights, by layer; boolean.

    Args:
        scores: Importance of every weight.
        ratio: Share that goes: of each layer, or of all together.
        scope: ``local`` or ``global``.
        least: In the global scope, how many weights each layer keeps in any case; :func:`check_budget` holds.
    """
    if scope == "local":
        return {name: largest(score, kept(score.numel(), ratio)) for name, score in scores.items()}
    safe = {name: largest(score, least[name]) for name, score in scores.items()}
    others = torch.cat([score.masked_fill(safe[name], -torch.inf).flatten() for name, score in scores.items()])
    chosen = largest(others, kept(len(others), ratio) - sum(least.values()))
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: safe[name] | part.view(safe[name].shape) for name, part in zip(scores, parts, strict=True)}


def importance(
    module: nn.Module, layers: Mapping[str, Layer], criterion: Criterion, split: Split, spec: InputSpec
) -> dict[str, Tensor]:
    """Return the importance of every weight of ``layers``; below zero where a weight is zero already.

    Args:
        module: Maps normalised images to logits; left as it is.
        layers: Some of its layers, by name.
        criterion: ``magnitude`` is ``|w|``, ``grad`` is ``|dL/dw|`` and ``taylor`` is ``|w dL/dw|``, with the mean
            cross-entropy ``L`` of ``split`` in evaluation mode.
        split: Labelled images; not looked at for ``magnitude``.
        spec: Normalisation.
    """
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    if criterion == "magnitude":
        scores = {name: weight.abs() for name, weight in weights.items()}
    else:
        slopes = _slopes(module, list(layers), split, spec)
        factors = {name: weight if criterion == "taylor" else 1.0 for name, weight in weights.items()}
        scores = {name: (factors[name] * slopes[name]).abs() for name in weights}
    return {name: score.masked_fill(weights[name] == 0, -1.0) for name, score in scores.items()}


def _slopes(module: nn.Module, names: list[str], split: Split, spec: InputSpec) -> dict[str, Tensor]:
    """Return the derivative of the mean cross-entropy with respect to the weights of the layers called ``names``."""
    shadow = copy.deepcopy(module).eval()
    weights = [shadow.get_parameter(f"{name}.weight").requires_grad_() for name in names]
    device = weights[0].device
    model = Normalised(shadow, spec).to(device)
    totals = [torch.zeros_like(weight) for weight in weights]
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    for rows in torch.arange(len(split)).split(MINIBATCH):
        with torch.enable_grad():
            loss = F.cross_entropy(model(x[rows].to(device)), y[rows].to(device), reduction="sum") / len(split)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(gradient)
    return dict(zip(names, totals, strict=True))
