"""How many channels may stay: widths, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rctk.models.resize import depthwise
from rctk.models.selection import Selection
from rctk.prune.cost import cost
from rctk.prune.coupling import Coupling, Member
from rctk.prune.surgery import Removed
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

Scope = Literal["global", "local"]
STEPS = 256
"""Shares of channels among which one is chosen."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Which widths are allowed.

    Attributes:
        round_to: Kept channels are a multiple of it, except where all are kept.
        min_channels: No coupling keeps fewer, except those that had fewer.
    """

    round_to: int = 8
    min_channels: int = 8

    def __post_init__(self) -> None:
        if min(self.round_to, self.min_channels) < 1:
            raise OptionError(f"round_to and min_channels are 1 or more, got {self.round_to} and {self.min_channels}")

    def allowed(self, wanted: int, channels: int, together: int = 1) -> int:
        """Return the least allowed width of ``wanted`` or more, of ``channels`` that come ``together`` at a time.

        Example:
            >>> Widths(round_to=16).allowed(17, 64), Widths(round_to=16).allowed(3, 20)
            (32, 16)
        """
        for width in range(max(wanted, self.min_channels, 1), channels):
            if width % self.round_to == 0 and width % together == 0:
                return width
        return channels


def choose(
    couplings: Sequence[Coupling], scores: Mapping[str, Tensor], share: float, scope: Scope, widths: Widths
) -> Removed:
    """Return the channels with the least scores.

    Args:
        couplings: What can be pruned.
        scores: ``(C,)`` for each, by name; compared with each other in the global scope.
        share: Of all channels, or of each coupling's, before widths are rounded up.
        scope: ``global`` compares all channels, ``local`` those of one coupling.
        widths: Allowed widths.
    """
    by_set = {
        coupling.name: scores[coupling.name].detach().cpu()[torch.tensor(coupling.sets)].mean(dim=1)
        for coupling in couplings
    }
    lost = _lowest(by_set, couplings, share) if scope == "global" else None
    removed = {}
    for coupling in couplings:
        values = by_set[coupling.name]
        together = len(coupling.sets[0])
        kept = len(values) - (int(share * len(values)) if lost is None else lost[coupling.name])
        width = widths.allowed(kept * together, coupling.channels, together)
        order = torch.argsort(values, stable=True).tolist()
        gone = order[: (coupling.channels - width) // together]
        removed[coupling.name] = frozenset(channel for each in gone for channel in coupling.sets[each])
    return removed


def _lowest(by_set: Mapping[str, Tensor], couplings: Sequence[Coupling], share: float) -> dict[str, int]:
    """Return of each coupling how many sets are among the ``share`` of all channels with the least scores.

    Equal scores go in turns, so that every coupling loses the same share of them.
    """
    ranked = []
    for coupling in couplings:
        values = by_set[coupling.name].sort().values.tolist()
        ranked += [(value, (place + 1) / len(values), coupling) for place, value in enumerate(values)]
    ranked.sort(key=lambda each: each[:2])
    left = int(share * sum(coupling.channels for coupling in couplings))
    lost = dict.fromkeys(by_set, 0)
    for _, _, coupling in ranked:
        left -= len(coupling.sets[0])
        if left < 0:
            break
        lost[coupling.name] += 1
    return lost


def least(
    couplings: Sequence[Coupling],
    scores: Mapping[str, Tensor],
    scope: Scope,
    widths: Widths,
    fits: Callable[[Removed], bool],
    steps: int = STEPS,
) -> Removed | None:
    """Return the choice with the smallest share that ``fits``; ``None`` where even the largest does not.

    Bisection over ``steps`` shares, evenly from 0 to 1.
    """
    low, high = 0, steps
    best = choose(couplings, scores, 1.0, scope, widths)
    if not fits(best):
        return None
    while low < high:
        middle = (low + high) // 2
        trial = choose(couplings, scores, middle / steps, scope, widths)
        if fits(trial):
            best, high = trial, middle
        else:
            low = middle + 1
    return best


class Estimate:
    """Parameters and multiplications of a network whose channels have not been cut yet.

    The figure that is reported is counted afterwards, see :mod:`rctk.prune.cost`; this one only steers.
    """

    def __init__(self, module: nn.Module, couplings: Sequence[Coupling], spec: InputSpec) -> None:
        self._couplings = couplings
        self._layers = {name: layer for name, layer in module.named_modules() if _counted(layer)}
        self._positions = _output_positions(module, self._layers, spec)
        self._members: dict[tuple[str, str], list[tuple[str, Member]]] = {}
        for coupling in couplings:
            for member in coupling.members:
                self._members.setdefault((member.layer, member.side), []).append((coupling.name, member))
        counted = cost(module, spec)  # also what is no layer here: attention, transposed and functional convolutions
        self._other_params = self._other_macs = 0
        self._other_params, self._other_macs = counted.parameters - self.params({}), counted.macs - self.macs({})

    def params(self, removed: Removed) -> int:
        """Return the parameters that stay."""
        trained = (name for name, layer in self._layers.items() if not isinstance(layer, Selection))
        return self._other_params + sum(self._parts(name, removed)[0] for name in trained)

    def macs(self, removed: Removed) -> int:
        """Return the multiplications for one image."""
        parts = (self._parts(name, removed)[1] * self._positions.get(name, 0) for name in self._layers)
        return self._other_macs + sum(parts)

    def channels(self, removed: Removed) -> int:
        """Return the channels that stay in all couplings."""
        return sum(each.channels - len(removed.get(each.name, ())) for each in self._couplings)

    def _parts(self, name: str, removed: Removed) -> tuple[int, int]:
        """Return parameters, and multiplications for one output position."""
        layer = self._layers[name]
        lost_out, lost_in = self._lost(name, "out", removed), self._lost(name, "in", removed)
        lost = self._lost(name, "both", removed)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            outputs = len(layer.weight) - lost_out - lost
            groups = 1 if depthwise(layer) else int(getattr(layer, "groups", 1))
            inputs = layer.weight.shape[1] - lost_in // groups
            weights = outputs * inputs * layer.weight[0, 0].numel()
            return weights + (0 if layer.bias is None else outputs), weights
        values = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        if not lost:
            return values, 0
        width = max(len(parameter) for parameter in layer.parameters(recurse=False))
        return values - lost * (values // width), 0

    def _lost(self, name: str, side: str, removed: Removed) -> int:
        places: set[int] = set()
        for coupling, member in self._members.get((name, side), ()):
            for channel in removed.get(coupling, ()):
                places.update(member.positions[channel])
        return len(places)


def _counted(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


def _output_positions(module: nn.Module, layers: Mapping[str, nn.Module], spec: InputSpec) -> dict[str, int]:
    """Return for each layer that multiplies at how many positions of one image it is computed, in all its calls."""
    found: dict[str, int] = {}
    handles = []
    for name, layer in layers.items():

        def look(layer: nn.Module, _: object, out: Tensor, name: str = name) -> None:
            found[name] = found.get(name, 0) + out[0].numel() // len(layer.weight)  # type: ignore[arg-type]

        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            handles.append(layer.register_forward_hook(look))
    modes = [(child, child.training) for child in module.modules()]
    try:
        with torch.no_grad():
            module.eval()(torch.zeros((1, *spec.shape), device=next(module.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
        for child, training in modes:
            child.training = training
    return found
