"""Zero-padded shortcuts become convolutions that select, so that their channels can be pruned one by one.

The paper's "option A" (He et al., CVPR 2016) skips pixels and appends zero channels. A 1x1 convolution with that stride
whose fixed weights are 0 and 1 computes the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Selection(nn.Conv2d):
    """A frozen 1x1 convolution: output ``front + c`` is input ``c`` at every ``stride``-th pixel, the others are 0."""

    def __init__(self, inputs: int, outputs: int, stride: int, front: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)
        self.weight.requires_grad_(False)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[front : front + inputs, :, 0, 0] = torch.eye(inputs)


def padded_shortcuts(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Selection]:
    """Find the submodules that are zero-padded shortcuts, by what they compute and not by their class.

    Args:
        module: Maps images ``(N, C, H, W)`` to logits; left in the mode it was in.
        image_shape: ``(C, H, W)``.

    Returns:
        For each of them, by its name, the convolution that does the same.
    """
    found: dict[str, Selection] = {}
    names = {child: name for name, child in module.named_modules() if name and _bare(child)}

    def look(child: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        selection = _selection_like(given, out)
        if selection is not None:
            found[names[child]] = selection

    handles = [child.register_forward_hook(look) for child in names]
    training = [(child, child.training) for child in module.modules()]
    example = torch.rand((2, *image_shape), generator=torch.Generator().manual_seed(0)) - 0.5
    try:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module(example.to(next(module.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
        for child, mode in training:
            child.training = mode
    return found


def select_instead_of_pad(module: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Replace the padded shortcuts of ``module`` in place, exactly; return their names."""
    device = next(module.parameters()).device
    found = padded_shortcuts(module, image_shape)
    for name, selection in found.items():
        module.set_submodule(name, selection.to(device))
    return sorted(found)


def _bare(child: nn.Module) -> bool:
    return not any(True for _ in child.parameters()) and not any(True for _ in child.children())


def _selection_like(given: tuple[Any, ...], out: Any) -> Selection | None:
    """Return the convolution that maps the observed input to the observed output, if there is one."""
    if len(given) != 1 or not all(isinstance(value, Tensor) and value.ndim == 4 for value in (given[0], out)):
        return None
    x: Tensor = given[0]
    extra = out.shape[1] - x.shape[1]
    if extra <= 0 or out.shape[2] == 0 or x.shape[2] < out.shape[2]:
        return None
    stride = -(-x.shape[2] // out.shape[2])
    strided = x[:, :, ::stride, ::stride]
    if strided.shape[2:] != out.shape[2:]:
        return None
    for front in range(extra + 1):
        if torch.equal(F.pad(strided, (0, 0, 0, 0, front, extra - front)), out):
            return Selection(x.shape[1], out.shape[1], stride, front)
    return None
