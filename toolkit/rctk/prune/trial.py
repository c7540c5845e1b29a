"""Couplings are tried out before anything is chosen: a way that was misread keeps its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from rctk.prune.coupling import Coupling
from rctk.prune.surgery import misread
from rctk_export.input_spec import InputSpec


class Understood(NamedTuple):
    """Couplings that can be cut together, and of the others by name what a cut would do."""

    free: tuple[Coupling, ...]
    whole: dict[str, str]


def understood(module: nn.Module, couplings: Sequence[Coupling], spec: InputSpec) -> Understood:
    """Cut half of the channels of copies of ``module``, and keep the couplings with which nothing else changes.

    All are tried at once; where that fails, halves of them beside those that have passed, down to single ones. A net
    that is understood costs one trial. What passes here can still fail :func:`rctk.prune.surgery.cut` with another
    choice of channels.

    Args:
        module: What the couplings were found in; left as it is.
        couplings: In any order, which decides who stays where two contradict each other.
        spec: Shape of the images.
    """
    passed: list[Coupling] = []
    whole: dict[str, str] = {}
    waiting = [list(couplings)] if couplings else []
    while waiting:
        part = waiting.pop()
        together = [*passed, *part]
        wrong = misread(module, together, {each.name: _half(each) for each in together}, spec)
        if wrong is None:
            passed = together
        elif len(part) == 1:
            whole[part[0].name] = f"without some of them the network would {wrong}"
        else:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
    return Understood(tuple(each for each in couplings if each.name not in whole), whole)


def _half(coupling: Coupling) -> frozenset[int]:
    """Return half of the channels, drawn at random, at least one set and never all."""
    drawn = torch.randperm(len(coupling.sets), generator=torch.Generator().manual_seed(0))
    return frozenset(channel for each in drawn[: len(drawn) // 2].tolist() for channel in coupling.sets[each])
