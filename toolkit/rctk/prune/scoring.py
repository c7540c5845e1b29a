"""Scores for everything that can be pruned in a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from rctk.compress.step import Context
from rctk.prune import CRITERIA
from rctk.prune.coupling import Coupling, find_couplings
from rctk.prune.criterion import Criterion
from rctk.prune.evidence import Evidence
from rctk.prune.trial import understood
from rctk_export.registry import unknown
from rctk_kernels.errors import OptionError

Normalise = Literal["mean", "none"]


class Scored(NamedTuple):
    """Couplings that may lose channels, the scores ``(C,)`` of each by name, and why others may not."""

    couplings: list[Coupling]
    scores: dict[str, Tensor]
    whole: dict[str, str]


def read_criterion(text: str) -> Criterion:
    """Make a criterion from a step's setting, where ``;`` stands for ``,``.

    Example:
        >>> read_criterion("pls:components=3")
        Pls(components=3)
    """
    return CRITERIA.build(text.replace(";", ","))


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How channels are scored.

    Attributes:
        criterion: Text of a criterion.
        normalise: ``mean`` divides the scores of a coupling by their mean, ``none`` leaves them.
        skip: Layers that keep their output channels.
        images: Training images for the criteria that look at data.
    """

    criterion: str
    normalise: Normalise
    skip: tuple[str, ...]
    images: int

    def __call__(self, module: nn.Module, context: Context) -> Scored:
        """Score the channels of ``module``, which is left as it is."""
        criterion = read_criterion(self.criterion)
        free, whole = find_couplings(module, context.input)
        whole |= self._skipped(module, free)
        free, misread = understood(module, [each for each in free if each.name not in whole], context.input)
        whole |= misread
        evidence = Evidence(module, context.train.sample(self.images, context.seed), context.input)
        scores: dict[str, Tensor] = {}
        with context.progress.stage(f"score channels by {self.criterion}", len(free)) as step:
            for coupling in free:
                group = evidence.group(coupling, criterion.need)
                if group is None:
                    whole[coupling.name] = f"{self.criterion} finds no {criterion.need} there"
                else:
                    score = criterion(group).cpu()
                    scale = score.mean().clamp_min(1e-30) if self.normalise == "mean" else 1
                    scores[coupling.name] = score / scale
                step(1)
        if not scores:
            reasons = "; ".join(sorted(set(whole.values()))[:3])
            raise OptionError(f"no channel of this network can be pruned by {self.criterion} ({reasons})")
        return Scored([each for each in free if each.name in scores], scores, whole)

    def check_skip(self, module: nn.Module) -> None:
        """Refuse names of ``skip`` that ``module`` does not have."""
        names = {name for name, _ in module.named_modules()} - {""}
        for name in self.skip:
            if name not in names:
                raise unknown("layer", name, sorted(names))

    def _skipped(self, module: nn.Module, free: tuple[Coupling, ...]) -> dict[str, str]:
        self.check_skip(module)
        return {
            each.name: "it was asked to"
            for each in free
            if any(member.layer in self.skip and member.side != "in" for member in each.members)
        }
