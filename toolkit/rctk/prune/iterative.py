"""Iterative magnitude pruning: a few weights go, the others are trained on, then a few more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from rctk.compress.step import Context
from rctk.prune.budget import Scope
from rctk.prune.finetune import finetune
from rctk.prune.magnitude import Magnitude
from rctk.prune.unstructured import Criterion, Layer, layers_to_prune, tell_left_out
from rctk.train.settings import TrainSettings
from rctk.train.step import read_objective, state_of
from rctk_kernels.errors import OptionError

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True, kw_only=True)
class Iterative:
    """Rounds of magnitude pruning, each followed by training of the weights that are left.

    Every round is a :class:`rctk.prune.magnitude.Magnitude`. With ``k = 1 - ratio``, the share ``k^(r / n)`` is left
    after round ``r`` of ``n`` (``geometric``: every round removes the same part of what is there), or
    ``1 - ratio (1 - (1 - r / n)^3)`` (``cubic``: the first rounds remove most). Weights are not drawn anew, zeros stay,
    and each round keeps its best epoch on the validation images. Dropout layers drop the share ``d sqrt(c)`` while it
    trains, where the nearest layer in front of them (where there is none, behind them) has a share ``c`` of its weights
    left. Shapes stay: no runtime here gets faster from such zeros, files compress better.

    Limits: thresholds are counts and not a multiple of a layer's standard deviation as in the paper; dropout that is
    called as a function is not seen.

    Attributes:
        ratio: Share of the weights that is zero in the end, in (0, 1).
        rounds: Prunings.
        schedule: How much goes in which round.
        epochs: Epochs of training after each.
        lr: Their largest learning rate; it falls to 0 in every round. The paper takes a tenth to a hundredth of that of
            the first training.
        objective: What is minimised; ``;`` stands for ``,``, as in ``pgd-at:eps=8/255;steps=7``.
        scope: See :class:`rctk.prune.magnitude.Magnitude`, as for the others.
        criterion: The same.
        floor: The same.
        skip: The same.
        images: The same.

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, section 3 and
        equation 2. https://arxiv.org/abs/1506.02626. The cubic schedule: Zhu and Gupta, "To Prune, or Not to Prune:
        Exploring the Efficacy of Pruning for Model Compression", 2017, equation 1. https://arxiv.org/abs/1710.01878
    """

    kind: ClassVar[Literal["module"]] = "module"

    ratio: float = 0.8
    rounds: int = 4
    schedule: Literal["geometric", "cubic"] = "geometric"
    epochs: int = 1
    lr: float = 0.01
    objective: str = "train.standard"
    scope: Scope = "global"
    criterion: Criterion = "magnitude"
    floor: float | None = None
    skip: str = ""
    images: int = 256

    def __post_init__(self) -> None:
        for name, value in (("rounds", self.rounds), ("epochs", self.epochs)):
            if value < 1:
                raise OptionError(f"{name} must be at least 1, got {value}")
        self._pruner(self.ratio)
        TrainSettings(objective=read_objective(self.objective), lr=self.lr)

    def check_ready(self, module: nn.Module, context: Context) -> None:
        """Refuse what the last round would refuse."""
        self._pruner(self.ratio).check_ready(module, context)

    def share(self, number: int) -> float:
        """Return the share of the weights that is zero after round ``number``, from 1.

        Example:
            >>> step = Iterative(ratio=0.75, rounds=2)
            >>> [step.share(number) for number in (1, 2)]
            [0.5, 0.75]
        """
        done = number / self.rounds
        if self.schedule == "cubic":
            return self.ratio * (1 - (1 - done) ** 3)
        return self.ratio if number == self.rounds else 1 - (1 - self.ratio) ** done

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with zeros, trained and in evaluation mode; it is changed in place."""
        tell_left_out(module, context.progress)
        self.check_ready(module, context)
        kept = state_of(self, module, context, stage="rounds")
        state: dict[str, Any] = (kept.load({}) if kept else None) or {"round": 0}
        if state["round"]:
            module.load_state_dict(state["weights"])
            context.progress.note(f"going on after round {state['round']}")
        for number in range(state["round"] + 1, self.rounds + 1):
            self._round(module, context, number)
            if kept:
                kept.save({}, {"round": number, "weights": module.state_dict()})
        if kept:
            kept.remove()
        return module.eval()

    def _round(self, module: nn.Module, context: Context, number: int) -> None:
        """Prune and train."""
        self._pruner(self.share(number)).prune(module, context)
        with rescaled_dropout(module, layers_to_prune(module)):
            finetune(
                module,
                context,
                read_objective(self.objective),
                epochs=self.epochs,
                lr=self.lr,
                stage=f"round {number}/{self.rounds}",
                resume=state_of(self, module, context, stage=f"round-{number}"),
            )

    def _pruner(self, ratio: float) -> Magnitude:
        return Magnitude(
            ratio=ratio,
            scope=self.scope,
            criterion=self.criterion,
            floor=self.floor,
            skip=self.skip,
            images=self.images,
        )


@contextmanager
def rescaled_dropout(module: nn.Module, layers: Mapping[str, Layer]) -> Iterator[None]:
    """Let dropout layers drop less within the block, by the square root of the share of connections that is left.

    Args:
        module: Its dropout layers change.
        layers: Those whose connections count, by name.
    """
    before: Layer | None = None
    usual: list[tuple[Any, float]] = []
    for name, each in module.named_modules():
        before = layers.get(name, before)
        if isinstance(each, DROPOUT):
            usual.append((each, each.p))
            weight = (before or next(iter(layers.values()))).weight
            each.p *= math.sqrt(int(weight.count_nonzero()) / weight.numel())
    try:
        yield
    finally:
        for each, share in usual:
            each.p = share
