"""Iterated gradient signs with the boosters of the transfer literature, freely combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind
from rctk.attacks.ball import Ball, draw_base, length
from rctk.attacks.best import Best
from rctk.attacks.boosters import BOOSTERS, REACH, SCALES, diverse, smooth
from rctk.attacks.draws import Words, image_seeds, noise_l2, uniform
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class TransferFGSM:
    """Iterated fast gradient steps from the original image, with boosters that help to fool other models; linf and l2.

    * ``mi`` momentum (Dong et al. 2018, https://arxiv.org/abs/1710.06081);
    * ``ni`` the gradient where the momentum leads to, and ``si`` the mean gradient over ``x / 2^i``, i = 0 .. 4
      (Lin et al. 2020, https://arxiv.org/abs/1908.06281);
    * ``di`` and ``ti``, see :mod:`rctk.attacks.boosters`;
    * ``vmi`` variance tuning (Wang and He 2021, https://arxiv.org/abs/2103.15571).

    Gradients are divided by their mean magnitude in linf, as the authors' code of MI does, and by their length
    otherwise. No division is by less than 1e-12, so a gradient that vanishes once does not freeze an image, and no
    point at which the model is asked lies outside [0, 1].

    For an int8 engine whose float parent or twin is at hand, plain ``apgd-ce`` transfers better: boosters are for
    models of another architecture.

    Attributes:
        boosters: Names joined by ``+``; ``none`` for the basic iterative method.
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``; ``none`` for 1 / ``steps``.
        decay: How much of the momentum stays from step to step.
        neighbours: Points that ``vmi`` looks at around each iterate.
        stop_at_success: Leave an image once the model is fooled. Off, because a candidate has to fool another one.
    """

    name: ClassVar[str] = "transfer"
    kind: ClassVar[Kind] = "gradient"

    boosters: str = "mi+di+ti+si"
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    neighbours: int = 5
    stop_at_success: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.neighbours) < 1:
            raise OptionError(
                f"transfer needs steps and neighbours of at least 1, got {self.steps} and {self.neighbours}"
            )
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise OptionError(f"transfer:step_size is a positive share of eps, got {self.step_size}")
        if not 0 <= self.decay < float("inf"):
            raise OptionError(f"transfer:decay must not be negative, got {self.decay}")
        unknown = self.chosen - set(BOOSTERS)
        if unknown:
            raise OptionError(f"transfer:boosters are {', '.join(BOOSTERS)} joined by +, or none; got {min(unknown)!r}")
        if "ni" in self.chosen and "mi" not in self.chosen:
            raise OptionError("transfer: ni looks ahead along the momentum of mi; write boosters=mi+ni")

    @property
    def chosen(self) -> frozenset[str]:
        """The boosters that are switched on."""
        return frozenset() if self.boosters == "none" else frozenset(self.boosters.split("+"))

    @property
    def passes(self) -> int:
        """Passes of all gradients, and a look at each iterate where no gradient is taken."""
        gradients = self.steps + ((self.steps - 1) * self.neighbours if "vmi" in self.chosen else 0)
        return 2 * gradients * (SCALES if "si" in self.chosen else 1) + (self.steps if self._elsewhere else 0) + 1

    @property
    def _elsewhere(self) -> bool:
        """Whether gradients are taken at other points than the iterates."""
        return bool(self.chosen & {"ni", "di", "si"})

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return for every image the iterate with the highest loss, one that fools ``model`` before all others."""
        best = Best(x)
        slopes = _Slopes(self, model, image_seeds(x.detach().cpu().numpy(), draw_base(generator)))
        run = _Run(x, y, Ball.around(x, threat))
        size = threat.eps * (1 / self.steps if self.step_size is None else self.step_size)
        for number in range(self.steps + 1):
            last = number == self.steps
            wanted = not (last or self._elsewhere)
            seen = look(model, run.adv, run.y, run.y, cross_entropy, gradient=wanted, until_broken=self.stop_at_success)
            best.offer(run.rows, run.adv, seen.loss, seen.broken)
            gradient = seen.gradient
            if self.stop_at_success and bool(seen.broken.any()):
                run.keep(~seen.broken)
                gradient = gradient[~seen.broken]
            if last or not len(run.rows):
                break
            if self._elsewhere:
                gradient = slopes.at(self._ahead(run, size), run)
            tuned = gradient + run.variance
            if "vmi" in self.chosen and number + 1 < self.steps:
                run.variance = slopes.around(run) - gradient
            self._accumulate(run, smooth(tuned) if "ti" in self.chosen else tuned)
            run.adv = run.ball.project(run.adv + size * run.ball.direction(run.momentum))
        return best.images

    def _ahead(self, run: _Run, size: float) -> Tensor:
        if "ni" not in self.chosen:
            return run.adv
        return (run.adv + size * self.decay * run.momentum).clamp(0, 1)

    def _accumulate(self, run: _Run, gradient: Tensor) -> None:
        linf = run.ball.threat.norm == "linf"
        scale = gradient.abs().mean(dim=(1, 2, 3), keepdim=True) if linf else length(gradient)
        unit = gradient / scale.clamp(min=_TINY)
        run.momentum = self.decay * run.momentum + unit if "mi" in self.chosen else unit


class _Run:
    """The images that are still attacked; every field has one entry per image."""

    def __init__(self, x: Tensor, y: Tensor, ball: Ball) -> None:
        self.rows = torch.arange(len(x), device=x.device)
        self.y, self.ball, self.adv = y, ball, x.detach().clone()
        self.momentum = torch.zeros_like(x)
        self.variance = torch.zeros_like(x)

    def keep(self, left: Tensor) -> None:
        self.rows, self.y, self.ball, self.adv = self.rows[left], self.y[left], self.ball.keep(left), self.adv[left]
        self.momentum, self.variance = self.momentum[left], self.variance[left]


class _Slopes:
    """Gradients with the boosters that act on the input."""

    def __init__(self, attack: TransferFGSM, model: nn.Module, seeds: Words) -> None:
        self._attack, self._model, self._seeds = attack, model, seeds
        self._streams = count()

    def at(self, point: Tensor, run: _Run) -> Tensor:
        """Return the gradient of the loss at ``point`` ``(n, C, H, W)``, over all scales."""
        copies = SCALES if "si" in self._attack.chosen else 1
        total = torch.zeros_like(point)
        for copy in range(copies):
            total += self._one(point, run, 0.5**copy)
        return total / copies

    def around(self, run: _Run) -> Tensor:
        """Return the mean gradient over random neighbours of the iterates."""
        total = torch.zeros_like(run.adv)
        for _ in range(self._attack.neighbours):
            total += self.at((run.adv + self._offset(run)).clamp(0, 1), run)
        return total / self._attack.neighbours

    def _one(self, point: Tensor, run: _Run, scale: float) -> Tensor:
        draws = self._draw(run, (4,)) if "di" in self._attack.chosen else None
        changed = _Changed(self._model, lambda x: x * scale if draws is None else diverse(x * scale, draws))
        return look(changed, point, run.y, run.y, cross_entropy, until_broken=False).gradient

    def _offset(self, run: _Run) -> Tensor:
        shape, radius = tuple(run.adv.shape[1:]), REACH * run.ball.threat.eps
        if run.ball.threat.norm == "linf":
            return radius * (2 * self._draw(run, shape) - 1)
        seeds = self._seeds[run.rows.cpu().numpy()]
        direction = torch.from_numpy(noise_l2(seeds, shape, stream=next(self._streams))).to(run.adv.device)
        return radius * self._draw(run, (1, 1, 1)) * direction

    def _draw(self, run: _Run, shape: tuple[int, ...]) -> Tensor:
        seeds = self._seeds[run.rows.cpu().numpy()]
        return torch.from_numpy(uniform(seeds, shape, stream=next(self._streams))).to(run.adv.device)


class _Changed(nn.Module):
    """A model that sees its input changed."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(self.change(x))
        return logits
