"""Scales on structures of a network: they multiply weights while they are trained, and are folded into these exactly.

A scale of 0 means that nothing of the structure is left: no layer reads the channel, or the block is its shortcut.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from rctk.models.selection import Selection
from rctk.prune.coupling import Coupling
from rctk.prune.layers import removable_blocks
from rctk_export.input_spec import InputSpec

AFFINE = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""Layers whose output is multiplied by what multiplies both their weight and their bias."""


class Scale(nn.Module):
    """Scales of one block, or of the channels of one coupling, with the velocities of their optimizer.

    Attributes:
        values: ``(S,)``; 1 at first.
        velocity: ``(S,)``; 0 at first.
    """

    velocity: Tensor

    def __init__(self, count: int, like: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(like.new_ones(count))
        self.register_buffer("velocity", like.new_zeros(count))


class Times(nn.Module):
    """Multiplies a weight by scales.

    Args:
        scale: Its values may be shared by many weights.
        index: Broadcasts to the weight; ``s`` stands for value ``s - 1``, 0 for no scale.
    """

    index: Tensor

    def __init__(self, scale: Scale, index: Tensor) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("index", index, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight as the layer uses it."""
        values = torch.cat([self.scale.values.new_ones(1), self.scale.values])
        return weight * values[self.index]


def scale_blocks(module: nn.Module, spec: InputSpec) -> dict[str, Scale]:
    """Put a scale on the branch of every residual block around the identity, in place.

    It multiplies the output of the layer that ends the branch. A block without such a layer gets none.

    Returns:
        Scales by the names of the blocks.
    """
    scales = {}
    for name in removable_blocks(module, spec):
        layer = _last_of_branch(module, name, spec)
        if layer is not None:
            scales[name] = Scale(1, next(layer.parameters()))
            for key, weight in list(layer.named_parameters(recurse=False)):
                one = torch.ones((1,) * weight.ndim, dtype=torch.long, device=weight.device)
                register_parametrization(layer, key, Times(scales[name], one))
    return scales


def _last_of_branch(module: nn.Module, name: str, spec: InputSpec) -> nn.Module | None:
    """Return the layer of a block that makes it the identity when it alone is silent; of several the last.

    Tried out on a copy with positive weights, so that no branch is silent by chance.
    """
    block = module.get_submodule(name)
    awake = copy.deepcopy(block).eval()
    for parameter in awake.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    images = torch.randn((2, *spec.shape), generator=torch.Generator().manual_seed(0))
    images = images.to(next(module.parameters()).device)
    expected = _logits(module, name, nn.Identity(), images)
    for key, layer in reversed(list(block.named_modules())):
        weight = getattr(layer, "weight", None)
        if not isinstance(layer, AFFINE) or is_parametrized(layer) or not isinstance(weight, nn.Parameter):
            continue
        silent = copy.deepcopy(awake)
        for parameter in silent.get_submodule(key).parameters():
            nn.init.zeros_(parameter)
        if torch.allclose(_logits(module, name, silent, images), expected):
            return layer
    return None


def _logits(module: nn.Module, name: str, other: nn.Module, images: Tensor) -> Tensor:
    """Return logits with ``other`` in the place of a block."""
    block = module.get_submodule(name)
    module.set_submodule(name, other)
    try:
        with torch.no_grad():
            logits: Tensor = module(images)
    finally:
        module.set_submodule(name, block)
    return logits


def scale_channels(module: nn.Module, couplings: Sequence[Coupling]) -> dict[str, Scale]:
    """Put scales on channels, in place: one for each set of channels that go together.

    It multiplies the channel wherever a layer reads it.

    Args:
        module: What the couplings were found in.
        couplings: None of them :func:`read_by_selection`.

    Returns:
        Scales by the names of the couplings, in the order of their sets.
    """
    scales = {}
    for coupling in couplings:
        scale = Scale(len(coupling.sets), next(module.parameters()))
        scales[coupling.name] = scale
        numbers = {channel: s for s, channels in enumerate(coupling.sets, start=1) for channel in channels}
        for member in coupling.members:
            if member.side == "in":
                layer = module.get_submodule(member.layer)
                places = {place: numbers[c] for c, several in enumerate(member.positions) for place in several}
                register_parametrization(layer, "weight", Times(scale, _index(layer, places)))
    return scales


def _index(layer: nn.Module, places: dict[int, int]) -> Tensor:
    """Return the index of :class:`Times` for a layer that reads scaled channels at ``places``."""
    weight, groups = layer.weight, int(getattr(layer, "groups", 1))
    assert isinstance(weight, Tensor)
    outputs, inner = weight.shape[:2]
    index = torch.zeros(groups * inner, dtype=torch.long, device=weight.device)
    for place, number in places.items():
        index[place] = number
    rows = index.view(groups, 1, inner).expand(-1, outputs // groups, -1)
    return rows.reshape(outputs, inner, *[1] * (weight.ndim - 2))


def read_by_selection(module: nn.Module, coupling: Coupling) -> bool:
    """Tell whether a zero-padded shortcut reads these channels: its weights of 0 and 1 take no scale."""
    return any(
        member.side == "in" and isinstance(module.get_submodule(member.layer), Selection) for member in coupling.members
    )


def fold(module: nn.Module) -> None:
    """Make the weights what the layers use, in place, and take all scales away."""
    for layer in list(module.modules()):
        chains = dict(getattr(layer, "parametrizations", None) or {})
        for key, chain in chains.items():
            if any(isinstance(each, Times) for each in chain):
                remove_parametrizations(layer, key, leave_parametrized=True)
