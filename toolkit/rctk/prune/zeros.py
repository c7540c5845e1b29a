"""Weights that are zero and stay zero, two in every four."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from rctk.models.selection import Selection


def two_of_four(weight: Tensor) -> Tensor:
    """Return where to keep: the two largest magnitudes of every four input channels, the first of equals.

    Args:
        weight: ``(O, I, *K)`` with ``I`` a multiple of 4.

    Returns:
        Boolean, of the same shape.

    Example:
        >>> two_of_four(torch.tensor([[1.0, -3.0, 2.0, 0.5]])).tolist()
        [[False, True, True, False]]
    """
    fours = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, 4))
    order = fours.argsort(dim=-1, descending=True, stable=True)
    keep = torch.zeros_like(fours, dtype=torch.bool).scatter(-1, order[..., :2], value=True)
    return keep.flatten(-2).movedim(-1, 1)


def fits_two_of_four(weight: Tensor) -> bool:
    """Tell whether at least two of every four input channels are zero, for each output and position.

    Example:
        >>> fits_two_of_four(torch.tensor([[1.0, 0, 2, 0]])), fits_two_of_four(torch.ones(1, 4))
        (True, False)
    """
    if weight.ndim < 2 or weight.shape[1] % 4:
        return False
    fours = weight.detach().movedim(1, -1).unflatten(-1, (-1, 4))
    return int(fours.count_nonzero(dim=-1).max()) <= 2


def prunable(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """Yield the layers that sparse tensor cores take: a multiple of four input channels for each group.

    A weight that is computed from others would not keep its zeros and is left out.
    """
    for name, layer in module.named_modules():
        if (
            isinstance(layer, (nn.Conv2d, nn.Linear))
            and not isinstance(layer, Selection)
            and owns_weight(layer)
            and not layer.weight.shape[1] % 4
        ):
            yield name, layer


def owns_weight(layer: nn.Module) -> bool:
    """Tell whether the weight is a parameter, and not computed from others by whichever form of ``weight_norm``."""
    return not is_parametrized(layer) and "weight" in dict(layer.named_parameters(recurse=False))


def patterned(module: nn.Module) -> set[str]:
    """Return the names of the weights that sparse tensor cores can take as they are."""
    return {f"{name}.weight" for name, layer in prunable(module) if fits_two_of_four(layer.weight)}


def hold_zeros(module: nn.Module) -> list[str]:
    """Keep the zeros of every 2:4 weight of ``module`` through training; return the names of these weights.

    Gradients at zeros are zeroed, so SGD with momentum and Adam, with or without weight decay, leave them at zero. It
    holds for the parameters themselves: call it again for a copy. A trainer may call it for any module, also for an
    :class:`~rctk_export.onnx_module.OnnxModule` under quantization-aware training.
    """
    held = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and fits_two_of_four(parameter):
            keep = parameter.detach() != 0

            def masked(gradient: Tensor, keep: Tensor = keep) -> Tensor:
                return gradient * keep.to(gradient)

            parameter.register_hook(masked)
            held.append(name)
    return held
