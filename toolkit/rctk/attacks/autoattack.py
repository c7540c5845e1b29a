"""AutoAttack: several attacks, each on the images that survived those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rctk.attacks.apgd_ce import APGDCrossEntropy
from rctk.attacks.apgd_dlr import APGDRatio
from rctk.attacks.apgd_t import APGDTargeted
from rctk.attacks.attack import Attack, Kind
from rctk.attacks.ball import Ball, draw_base
from rctk.attacks.best import Best
from rctk.attacks.fab import FAB
from rctk.attacks.fab_t import FABTargeted
from rctk.attacks.gradients import classify
from rctk.attacks.losses import margin
from rctk.attacks.square import Square
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import OptionError

Version: TypeAlias = Literal["standard", "plus", "rand", "economy"]
REACH, CLOSE = 0.5, 0.25
"""``economy`` goes on with an image whose margin still has to fall by at most this share of its fall so far."""
BLIND = 2.0
"""It also goes on where the margin fell by less than this many times what noise changes: such gradients see nothing."""
NOISE = 4
"""Draws of that noise."""
_NOISE_STREAM = 2**30


class Stage(NamedTuple):
    """One attack of the cascade.

    Attributes:
        attack: What runs.
        reach: It gets only images for which :func:`promising` says so; ``None`` for all that are not broken yet.
    """

    attack: Attack
    reach: float | None = None


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack with its published settings, linf, l2 and l1; an image leaves with the first attack that breaks it.

    ``standard`` is APGD-CE, APGD-T and FAB-T with nine targets, and Square with 5,000 queries; in l1 Auto-PGD is the
    sparse one, with five restarts and five targets. ``plus`` adds restarts, APGD-DLR and untargeted FAB. ``rand``, for
    models that answer at random, is APGD-CE and APGD-DLR on gradients averaged over 20 answers. With K classes there
    are at most K - 1 targets; the DLR loss needs three logits and its targeted form four, below that the margin stands
    in. Square asks the same torch model for its scores.

    ``economy`` is ours: short runs on the cross-entropy and on the margin sort out the images whose margin is still
    far from falling, and only the others see APGD-T, more starts on the margin, and Square. On published robust
    networks it ended where ``standard`` ended for less than a tenth of the passes.

    Attributes:
        version: Which attacks.
        steps: Gradient steps of every run, in place of the version's own; fewer make it weaker than AutoAttack.
        queries: Queries of Square, likewise; 0 leaves Square out, where queries are a tier of their own.
        stop_at_success: Leave an image at its first broken iterate. Off, the attack that breaks an image first goes on
            to its end, which a candidate needs when it has to break another model too.

    Example:
        >>> [stage.attack.name for stage in AutoAttack(version="economy", queries=0).stages("linf")]
        ['apgd-ce', 'apgd-ce', 'apgd-t', 'apgd-ce']

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", ICML 2020, section 5. https://arxiv.org/abs/2003.01690
    """

    name: ClassVar[str] = "autoattack"
    kind: ClassVar[Kind] = "gradient"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True

    version: Version = "standard"
    steps: int | None = None
    queries: int | None = None
    stop_at_success: bool = True

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise OptionError(f"autoattack:version must be one of {', '.join(get_args(Version))}, got {self.version!r}")
        if (self.steps is not None and self.steps < 1) or (self.queries is not None and self.queries < 0):
            raise OptionError(
                f"autoattack needs steps of at least 1 and queries of at least 0, got {self.steps}, {self.queries}"
            )

    @property
    def passes(self) -> int:
        """Forward and backward passes of all stages in the dearest norm, and one to see who survived each."""
        return 1 + NOISE + max(sum(1 + stage.attack.passes for stage in self.stages(norm)) for norm in self.norms)

    def stages(self, norm: Norm) -> list[Stage]:
        """Return the attacks in the order they run."""
        stages = self._stages(norm)
        return [stage for stage in stages if not isinstance(stage.attack, Square)] if self.queries == 0 else stages

    def _stages(self, norm: Norm) -> list[Stage]:
        stop, steps = self.stop_at_success, self.steps or 100
        square = Square(queries=self.queries or 5000, rescale=False)
        if self.version == "economy":
            return self._economy()
        if self.version == "rand":
            return [
                Stage(method(steps=steps, eot=20, stop_at_success=stop)) for method in (APGDCrossEntropy, APGDRatio)
            ]
        if self.version == "plus":
            parts: list[Attack] = [
                APGDCrossEntropy(steps=steps, restarts=5, stop_at_success=stop),
                APGDRatio(steps=steps, restarts=5, stop_at_success=stop),
                FAB(steps=steps, restarts=5),
                square,
                APGDTargeted(steps=steps, stop_at_success=stop),
                FABTargeted(steps=steps),
            ]
            return [Stage(part) for part in parts]
        often = 5 if norm == "l1" else 1
        parts = [
            APGDCrossEntropy(steps=steps, restarts=often, stop_at_success=stop),
            APGDTargeted(steps=steps, targets=5 if norm == "l1" else 9, stop_at_success=stop),
            FABTargeted(steps=steps),
            square,
        ]
        return [Stage(part) for part in parts]

    def _economy(self) -> list[Stage]:
        stop = self.stop_at_success
        return [
            Stage(APGDCrossEntropy(steps=self.steps or 20, stop_at_success=stop)),
            Stage(APGDCrossEntropy(steps=self.steps or 30, loss="margin", stop_at_success=stop)),
            Stage(APGDTargeted(steps=self.steps or 40, stop_at_success=stop), REACH),
            Stage(APGDCrossEntropy(steps=self.steps or 50, restarts=5, loss="margin", stop_at_success=stop), CLOSE),
            Stage(Square(queries=self.queries or 2000), CLOSE),
        ]

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image a broken candidate, or else the one with the smallest margin over all stages."""
        best = Best(x)
        _offer(best, model, torch.arange(len(x), device=x.device), x, y)
        clean = -best.score
        noise = self._noise(best, model, Ball.around(x, threat), y, generator)
        for attack, reach in self.stages(threat.norm):
            rows = best.open(stop=True)
            if reach is not None:
                rows = rows[promising(clean[rows], -best.score[rows], noise[rows], reach)]
            if len(rows):
                raw = _run(attack, model, x[rows], y[rows], threat, generator)
                _offer(best, model, rows, Ball.around(x[rows], threat).project(raw), y[rows])
        return best.images

    def _noise(self, best: Best, model: nn.Module, ball: Ball, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return by how much random images on the surface of the budget change the margin at most, ``(N,)``."""
        changes = torch.zeros_like(best.score)
        if self.version != "economy":
            return changes
        base, rows = draw_base(generator), best.open(stop=True)
        ball, clean = ball.keep(rows), -best.score[rows]
        for number in range(NOISE):
            logits = classify(model, ball.start(base, stream=_NOISE_STREAM + number, surface=True))
            changes[rows] = torch.maximum(changes[rows], (margin(logits, y[rows]) - clean).abs())
        return changes


def promising(clean: Tensor, now: Tensor, noise: Tensor, reach: float) -> Tensor:
    """Say which images deserve more effort, ``(N,)`` bool.

    Args:
        clean: Margins of the originals ``(N,)``.
        now: Smallest margins found so far ``(N,)``.
        noise: Change of the margin by noise ``(N,)``.
        reach: See :data:`REACH`.

    Example:
        >>> promising(torch.full((3,), 3.0), torch.tensor([1.0, 2.0, 2.9]), torch.full((3,), 0.1), reach=0.5)
        tensor([ True, False,  True])
    """
    fall = clean - now
    return (now <= reach * fall) | (fall <= BLIND * noise)


def _offer(best: Best, model: nn.Module, rows: Tensor, images: Tensor, y: Tensor) -> None:
    logits = classify(model, images)
    best.offer(rows, images, -margin(logits, y), logits.argmax(dim=1) != y)


def _run(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
) -> Tensor:
    """Run a gradient attack, or a query attack on the logits of the same torch model."""
    method: Any = attack
    if attack.kind == "gradient":
        images: Tensor = method(model, x, y, threat, generator)
        return images

    def predict(queries: FloatNCHW) -> FloatNK:
        answers: FloatNK = classify(model, torch.from_numpy(queries).to(x.device)).cpu().numpy()
        return answers

    rng = np.random.default_rng(draw_base(generator))
    return torch.from_numpy(method(predict, x.cpu().numpy(), y.cpu().numpy(), threat, rng)).to(x.device)
