"""Whole residual blocks go; what is left of one is its shortcut."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rctk.compress.step import Context
from rctk.models.selection import select_instead_of_pad
from rctk.prune.cost import cost
from rctk.prune.coupling import find_couplings
from rctk.prune.depgraph import summary
from rctk.prune.evidence import Evidence
from rctk.prune.kl import divergence
from rctk.prune.scoring import read_criterion
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Replace the least important residual blocks by the identity.

    Only blocks whose shortcut is the identity can go. With ``removal`` they go one by one, each time the one whose
    absence moves the predictions least; with a criterion of channels, all at once by the mean score of the channels
    inside.

    Attributes:
        blocks: How many go.
        criterion: ``removal`` (KL divergence of the predictions), or a member of the family of criteria.
        images: Training images to look at.

    Reference:
        Jordao et al., "Discriminative Layer Pruning for Convolutional Neural Networks", IEEE JSTSP 14(4), 2020.
        https://arxiv.org/abs/1911.06967
    """

    kind: ClassVar[Literal["module"]] = "module"

    blocks: int = 1
    criterion: str = "removal"
    images: int = 256

    def __post_init__(self) -> None:
        if min(self.blocks, self.images) < 1:
            raise OptionError(f"blocks and images are 1 or more, got {self.blocks} and {self.images}")
        if self.criterion != "removal":
            read_criterion(self.criterion)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with fewer blocks, in evaluation mode; it is changed in place."""
        module.eval()
        names = removable_blocks(module, context.input)
        if not names:
            raise OptionError("no block of this network has an identity shortcut; prune channels with prune.depgraph")
        if len(names) < self.blocks:
            raise OptionError(
                f"{len(names)} blocks have an identity shortcut, blocks={self.blocks} cannot go; ask for less"
            )
        before = cost(module, context.input)
        gone = self._by_removal(module, names, context) if self.criterion == "removal" else None
        for name in gone if gone is not None else self._by_channels(module, names, context):
            module.set_submodule(name, nn.Identity())
            context.progress.note(f"{name} is gone; its shortcut stays")
        context.progress.note(summary(before, cost(module, context.input)))
        return module.eval()

    def _by_removal(self, module: nn.Module, names: list[str], context: Context) -> list[str]:
        images = _normalised(context, self.images).to(next(module.parameters()).device)
        trial, gone = copy.deepcopy(module), list[str]()
        with torch.no_grad(), context.progress.stage("try without each block", self.blocks) as step:
            whole = trial(images)
            for _ in range(self.blocks):
                scores = {name: divergence(whole, _without(trial, name, images)) for name in names if name not in gone}
                gone.append(min(scores, key=lambda name: float(scores[name])))
                trial.set_submodule(gone[-1], nn.Identity())
                step(1)
        return gone

    def _by_channels(self, module: nn.Module, names: list[str], context: Context) -> list[str]:
        """Return the blocks with the least mean score of the channels that are made and read inside them."""
        criterion = read_criterion(self.criterion)
        shadow = copy.deepcopy(module)
        select_instead_of_pad(shadow, context.input.shape)
        evidence = Evidence(shadow, context.train.sample(self.images, context.seed), context.input)
        scores: dict[str, list[Tensor]] = {name: [] for name in names}
        for coupling in find_couplings(shadow, context.input).free:
            for name in names:
                if all(member.layer.startswith(f"{name}.") for member in coupling.members):
                    group = evidence.group(coupling, criterion.need)
                    scores[name] += [] if group is None else [criterion(group).flatten().cpu()]
        scored = {name: float(torch.cat(values).mean()) for name, values in scores.items() if values}
        if len(scored) < self.blocks:
            raise OptionError(
                f"{self.criterion} scores {len(scored)} blocks, blocks={self.blocks} cannot go; use removal"
            )
        return sorted(scored, key=lambda name: scored[name])[: self.blocks]


def removable_blocks(module: nn.Module, spec: InputSpec) -> list[str]:
    """Return the blocks that hand on their input when all their parameters are zero: their shortcut is the identity.

    Args:
        module: Left as it is.
        spec: Shape of the images; random ones run through.
    """
    names = dict(_blocks(module))
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, block in names.items():

        def look(_: nn.Module, given: tuple[object, ...], name: str = name) -> None:
            if len(given) == 1 and isinstance(given[0], Tensor):
                inputs[name] = given[0].detach()

        handles.append(block.register_forward_pre_hook(look))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, *spec.shape), generator=generator).to(next(module.parameters()).device)
    try:
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, block in names.items() if name in inputs and _passes(block, inputs[name])]


def _blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield submodules that hold more than one convolution, those of several blocks as well."""
    for name, child in module.named_children():
        layers = sum(isinstance(each, (nn.Conv2d, nn.Linear)) for each in child.modules())
        if layers > 1:
            yield f"{prefix}{name}", child
            yield from _blocks(child, f"{prefix}{name}.")


def _passes(block: nn.Module, given: Tensor) -> bool:
    """Tell whether ``block`` is one residual block around the identity; a row of them is none."""
    if isinstance(block, (nn.Sequential, nn.ModuleList)):
        return False
    silent = copy.deepcopy(block).eval()
    with torch.no_grad():
        for parameter in silent.parameters():
            parameter.zero_()
        out = silent(given)
    return isinstance(out, Tensor) and out.shape == given.shape and torch.equal(out, given)


def _without(module: nn.Module, name: str, images: Tensor) -> Tensor:
    block = module.get_submodule(name)
    module.set_submodule(name, nn.Identity())
    logits: Tensor = module(images)
    module.set_submodule(name, block)
    return logits


def _normalised(context: Context, count: int) -> Tensor:
    mean, std = (torch.from_numpy(array) for array in context.input.mean_std())
    return (torch.from_numpy(context.train.sample(count, context.seed).images) - mean) / std
