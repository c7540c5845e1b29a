"""Channels are cut out of every layer that knows them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rctk.models.resize import adopt
from rctk.prune.coupling import Coupling, Member
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import MismatchError

Removed = Mapping[str, frozenset[int]]
"""For a coupling, by its name, the channels that go."""
TOLERANCE = 1e-4


def cut(module: nn.Module, couplings: Sequence[Coupling], removed: Removed, spec: InputSpec) -> None:
    """Remove channels from ``module`` in place, once a copy has shown that this computes what zeroing them would.

    The reference is a copy of the module in which no layer looks at the channels any more. Logits of random images must
    agree to 1e-4 of their range.

    Args:
        module: What the couplings were found in.
        couplings: All of them.
        removed: What goes.
        spec: Shape of the images.

    Raises:
        MismatchError: The smaller module would compute something else; ``module`` is as it was.
    """
    wrong = misread(module, couplings, removed, spec)
    if wrong is not None:
        raise MismatchError(
            f"the pruned network would {wrong}: its channels take a way that was not understood; leave layers whole "
            "with skip=NAME until it does not, and report the architecture"
        )
    _cut_layers(module, _gone(couplings, removed))


def misread(module: nn.Module, couplings: Sequence[Coupling], removed: Removed, spec: InputSpec) -> str | None:
    """Say how the cut network would differ from one that ignores the channels, None where it would not.

    Args:
        module: What the couplings were found in; left as it is.
        couplings: All of them.
        removed: What would go.
        spec: Shape of the images.
    """
    blind, small = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    for coupling in couplings:
        hide(blind, coupling, removed.get(coupling.name, frozenset()))
    _cut_layers(small, _gone(couplings, removed))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((4, *spec.shape), generator=generator).to(next(small.parameters()).device)
    with torch.no_grad():
        expected = blind(images)
        try:
            found = small(images)
        except Exception as error:  # noqa: BLE001  # forward() is the user's and fails in its own way
            reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
            return f"not run ({reason})"
    difference = float((expected - found).abs().max())
    if difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        return None
    return f"differ from the masked one by {difference:.3g} in its logits"


def hide(module: nn.Module, coupling: Coupling, channels: frozenset[int]) -> None:
    """Zero, in place, every weight with which a layer reads one of ``channels``."""
    for member in coupling.members:
        layer = module.get_submodule(member.layer)
        if member.side == "in":
            assert isinstance(layer.weight, Tensor)
            with torch.no_grad():
                for place in _places(member, channels):
                    column(layer, place).zero_()


def column(layer: nn.Module, place: int) -> Tensor:
    """Return a view of the weights with which ``layer`` reads its input channel ``place``."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = int(getattr(layer, "groups", 1))
    group, inner = divmod(place, weight.shape[1])
    rows = len(weight) // groups
    return weight[group * rows : (group + 1) * rows, inner]


def _places(member: Member, channels: frozenset[int]) -> set[int]:
    return {place for channel in channels for place in member.positions[channel]}


def _gone(couplings: Sequence[Coupling], removed: Removed) -> dict[tuple[str, str], set[int]]:
    """Return what goes for each side of each layer; several couplings may meet in one."""
    gone: dict[tuple[str, str], set[int]] = {}
    for coupling in couplings:
        for member in coupling.members:
            places = _places(member, removed.get(coupling.name, frozenset()))
            gone.setdefault((member.layer, member.side), set()).update(places)
    return {key: places for key, places in gone.items() if places}


def _cut_layers(module: nn.Module, gone: Mapping[tuple[str, str], set[int]]) -> None:
    for (name, side), places in gone.items():
        _cut_layer(module.get_submodule(name), side, places)


def _cut_layer(layer: nn.Module, side: str, places: set[int]) -> None:
    """Take ``places`` out of one side of a layer."""
    tensors = {name: value for name, value in layer.state_dict(keep_vars=True).items() if value.ndim}
    weight = tensors["weight"] if "weight" in tensors else next(iter(tensors.values()))
    if side == "in":
        inner = weight.shape[1]  # a grouped convolution loses the same place in every group
        kept = [place for place in range(inner) if place not in places]
        adopt(layer, {"weight": weight[:, kept]})
        return
    kept = [place for place in range(len(weight)) if place not in places]
    adopt(layer, {name: value[kept] for name, value in tensors.items()})
