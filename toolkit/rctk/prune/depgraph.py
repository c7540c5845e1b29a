"""Structured pruning: whole channels go, from every layer that knows them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.models.selection import select_instead_of_pad
from rctk.prune.budget import STEPS, Estimate, Scope, Widths, choose, least
from rctk.prune.cost import Cost, cost
from rctk.prune.finetune import finetune
from rctk.prune.latency import LatencyJudge
from rctk.prune.scoring import Normalise, Scored, Scoring, read_criterion
from rctk.prune.surgery import Removed, cut
from rctk.train.settings import TrainSettings
from rctk.train.step import read_objective
from rctk_kernels.errors import OptionError

By = Literal["params", "macs", "channels", "latency"]
Meter = Callable[[Removed], float]
TRIALS = 32
"""Shares of channels among which a latency is looked for; each trial exports and times an engine."""


@dataclass(frozen=True, kw_only=True)
class DepGraph:
    """Remove the channels with the least scores until a budget holds.

    The budget is a share of what the network had: parameters, multiplications, channels, or the measured time of its
    int8 engine (ONNX Runtime, target ``cpu``, one image, one thread, this machine). With several rounds, round ``r`` of
    ``n`` keeps ``(1 - ratio)^(r / n)`` and is followed by ``epochs`` of fine-tuning.

    Attributes:
        criterion: Member of the family of criteria; ``;`` stands for ``,``, as in ``pls:components=3``.
        ratio: Share that goes, in (0, 1).
        by: What it is a share of.
        scope: ``global`` compares channels of all layers, ``local`` removes the same share of each.
        normalise: In the global scope, ``mean`` divides the scores of a layer by their mean, ``none`` leaves them.
        round_to: Kept channels are a multiple of it. Int8 kernels want 16 or 32.
        min_channels: No layer keeps fewer.
        skip: Layers that keep their output channels, joined by ``+``.
        images: Training images for the criteria that look at data.
        rounds: Prunings, one after the other.
        epochs: Epochs of fine-tuning after each round; 0 leaves training to a later step.
        lr: Its largest learning rate.
        objective: Its training objective; ``;`` stands for ``,``, as in ``pgd-at:eps=8/255;steps=7``.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. https://arxiv.org/abs/2301.12900
    """

    kind: ClassVar[Literal["module"]] = "module"
    role: ClassVar[str] = "channels"

    criterion: str = "l2"
    ratio: float = 0.5
    by: By = "macs"
    scope: Scope = "global"
    normalise: Normalise = "mean"
    round_to: int = 8
    min_channels: int = 8
    skip: str = ""
    images: int = 128
    rounds: int = 1
    epochs: int = 0
    lr: float = 0.01
    objective: str = "standard"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise OptionError(f"ratio is the share that is pruned away, above 0 and below 1; got {self.ratio}")
        if min(self.images, self.rounds) < 1 or self.epochs < 0:
            raise OptionError(
                f"images and rounds are 1 or more and epochs 0 or more, got {self.images}, {self.rounds}, {self.epochs}"
            )
        Widths(round_to=self.round_to, min_channels=self.min_channels)
        read_criterion(self.criterion)
        TrainSettings(objective=read_objective(self.objective), lr=self.lr)
        if not self.epochs and (self.objective, self.lr) != (DepGraph.objective, DepGraph.lr):
            raise OptionError("objective and lr need epochs to train in; give prune.depgraph epochs, or leave them out")

    def check_ready(self, module: nn.Module, context: Context) -> None:  # noqa: ARG002  # names are all it asks
        """Refuse layers to skip that the network does not have."""
        self._scoring().check_skip(module)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, smaller and in evaluation mode; it is changed in place."""
        module.eval()
        before = cost(module, context.input)
        for name in select_instead_of_pad(module, context.input.shape):
            context.progress.note(f"{name}: its zero-padded shortcut is now a 1x1 convolution that computes the same")
        judge = LatencyJudge(copy.deepcopy(module), context.input, context.train) if self.by == "latency" else None
        whole: dict[str, str] = {}
        total = 0.0
        for number in range(1, self.rounds + 1):
            scored = self._scoring()(module, context)
            for name in scored.whole.keys() - whole.keys():
                context.progress.note(f"{name} keeps its channels: {scored.whole[name]}")
            whole |= scored.whole
            meter = self._meter(module, scored, context, judge)
            total = total or (meter({}) if judge is None else 1.0)
            keep = (1 - self.ratio) ** (number / self.rounds)
            cut(module, scored.couplings, self._choose(scored, meter, total * keep), context.input)
            self._finetune(module, context, number)
        context.progress.note(summary(before, cost(module, context.input)))
        return module.eval()

    def _scoring(self) -> Scoring:
        return Scoring(
            criterion=self.criterion,
            normalise=self.normalise,
            skip=tuple(filter(None, self.skip.split("+"))),
            images=self.images,
        )

    def _meter(self, module: nn.Module, scored: Scored, context: Context, judge: LatencyJudge | None) -> Meter:
        """Return what tells how much of the budget a choice takes."""
        estimate = Estimate(module, scored.couplings, context.input)
        if judge is None:
            return {"params": estimate.params, "macs": estimate.macs, "channels": estimate.channels}[self.by]

        known: dict[frozenset[tuple[str, frozenset[int]]], float] = {}

        def timed(removed: Removed) -> float:
            key = frozenset(removed.items())
            if key not in known:
                known[key] = measured(removed)
            return known[key]

        def measured(removed: Removed) -> float:
            trial = copy.deepcopy(module)
            cut(trial, scored.couplings, removed, context.input)
            share = judge.share(trial)
            macs = cost(trial, context.input).macs
            context.progress.note(f"int8 engine of {macs:,} MACs: {share:.3f} of the dense time")
            return share

        return timed

    def _choose(self, scored: Scored, meter: Meter, budget: float) -> Removed:
        """Return the smallest removal within ``budget``."""
        widths = Widths(round_to=self.round_to, min_channels=self.min_channels)
        steps = TRIALS if self.by == "latency" else STEPS
        removed = least(
            scored.couplings, scored.scores, self.scope, widths, lambda trial: meter(trial) <= budget, steps
        )
        if removed is None:
            most = meter(choose(scored.couplings, scored.scores, 1.0, self.scope, widths))
            unit = "of the dense time" if self.by == "latency" else self.by
            raise OptionError(
                f"ratio {self.ratio:g} by {self.by} is out of reach: the narrowest network still has {most:g} {unit}, "
                f"the budget is {budget:g}; lower round_to or min_channels, or prune layers"
            )
        return removed

    def _finetune(self, module: nn.Module, context: Context, number: int) -> None:
        if self.epochs:
            stage = f"fine-tune {number}/{self.rounds}"
            finetune(module, context, read_objective(self.objective), epochs=self.epochs, lr=self.lr, stage=stage)


def summary(before: Cost, after: Cost) -> str:
    """Say in one line what went.

    Example:
        >>> one = Cost(parameters=10, nonzero=10, macs=400, size_bytes=40)
        >>> summary(one, Cost(parameters=5, nonzero=5, macs=100, size_bytes=20))
        'pruned: parameters 10 -> 5 (50 %), MACs 400 -> 100 (25 %), bytes 40 -> 20 (50 %)'
    """
    pairs = (
        ("parameters", before.parameters, after.parameters),
        ("MACs", before.macs, after.macs),
        ("bytes", before.size_bytes, after.size_bytes),
    )
    return "pruned: " + ", ".join(f"{name} {old:,} -> {new:,} ({100 * new / old:.0f} %)" for name, old, new in pairs)
