"""CLEVER: an estimate of the smallest adversarial distance from local gradients. Host only: torch and scipy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize, stats
from torch import Tensor, nn

from rctk.attacks.gradients import frozen
from rctk_kernels.errors import AttackError, OptionError

SHAPES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Shapes that the likelihood is climbed from."""
PENALTY = 0.01
"""Times the squared shape, added to the negative log-likelihood: see :func:`fit_reverse_weibull`."""
POOR_FIT = 0.001
"""Kolmogorov-Smirnov p-value below which the fit is not believed."""
CONSTANT = 1e-5
"""Maxima that spread less than this share of themselves are one number; nothing is fitted."""


class Fit(NamedTuple):
    """A reverse Weibull distribution fitted to maxima.

    Attributes:
        location: Its upper end: the estimate of the largest value there is.
        p_value: Kolmogorov-Smirnov; 1 where all maxima are equal.
        fitted: False where the fit was poor and ``location`` is the largest maximum seen.
    """

    location: float
    p_value: float
    fitted: bool


class TargetScore(NamedTuple):
    """CLEVER towards one class: the margin of the image over the Lipschitz estimate, at most the radius."""

    target: int
    margin: float
    lipschitz: Fit
    score: float


class CleverScore(NamedTuple):
    """CLEVER of one image.

    Attributes:
        score: Estimated smallest distance to another class: the minimum over ``targets``. 0 for a misclassified image.
        targets: One per class that was looked at.
        zero_gradients: Share of sampled gradients that were zero; where it is not small, the score flatters.
    """

    score: float
    targets: tuple[TargetScore, ...]
    zero_gradients: float


@dataclass(frozen=True, kw_only=True)
class Clever:
    """Margin over the estimated local Lipschitz constant of the margin.

    An estimate and no bound, and a gradient statistic: masked gradients raise it. It says nothing about an engine; use
    the float model, or a twin whose gradients the audit found sound. One image with the defaults costs ``batches *
    samples * classes`` backward passes; 50 batches of 128 are a usable start.

    Reference:
        Weng et al., "Evaluating the Robustness of Neural Networks: An Extreme Value Theory Approach", ICLR 2018,
        algorithm 1. https://arxiv.org/abs/1801.10578

    Attributes:
        norm: ``l2`` (gradients in l2) or ``linf`` (gradients in l1).
        radius: Of the ball around the image that is sampled, pixels outside [0, 1] included; caps the score.
        batches: Maxima that the distribution is fitted to.
        samples: Points per maximum.
        top: Only the so many highest wrong classes; None for all.
    """

    name: ClassVar[str] = "clever"

    norm: Literal["l2", "linf"] = "l2"
    radius: float = 5.0
    batches: int = 500
    samples: int = 1024
    top: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in {"l2", "linf"}:
            raise OptionError(f"clever:norm must be l2 or linf, got {self.norm!r}")
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise OptionError(f"clever:radius must be a positive number, got {self.radius}")
        if self.batches < 2 or self.samples < 1 or (self.top is not None and self.top < 1):
            raise OptionError(
                f"clever needs batches >= 2, samples >= 1 and top >= 1, got {self.batches}, {self.samples}, {self.top}"
            )

    def __call__(self, model: nn.Module, image: Tensor, label: int, generator: torch.Generator) -> CleverScore:
        """Score one image ``(C, H, W)`` of class ``label``."""
        with frozen(model), torch.no_grad():
            logits = model(image[None])[0]
            others = [k for k in torch.argsort(logits, descending=True).tolist() if k != label][: self.top]
            margins = (logits[label] - logits[others]).tolist()
            if min(margins) <= 0:
                return CleverScore(0.0, (), 0.0)
            drawn = [self._largest_slopes(model, image, label, others, generator) for _ in range(self.batches)]
        maxima = np.array([slopes for slopes, _ in drawn])
        targets = tuple(
            _target(k, margin, maxima[:, i], self.radius)
            for i, (k, margin) in enumerate(zip(others, margins, strict=True))
        )
        zeros = float(np.mean([share for _, share in drawn]))
        return CleverScore(min(target.score for target in targets), targets, zeros)

    def _largest_slopes(
        self, model: nn.Module, image: Tensor, label: int, others: list[int], generator: torch.Generator
    ) -> tuple[list[float], float]:
        """Return, per class of ``others``, the largest gradient norm over fresh points, and the share of zeros."""
        points = (image + self._offsets(image, generator)).requires_grad_()
        with torch.enable_grad():
            logits = model(points)
            if not logits.requires_grad:
                raise AttackError("clever needs a model with gradients; score the float model or a twin")
            slopes = [
                torch.autograd.grad((logits[:, label] - logits[:, k]).sum(), points, retain_graph=True)[0]
                for k in others
            ]
        lengths = torch.stack([s.flatten(1).norm(p=2 if self.norm == "l2" else 1, dim=1) for s in slopes])
        return lengths.amax(dim=1).tolist(), float((lengths == 0).float().mean())

    def _offsets(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Draw points uniformly in the ball, ``(samples, C, H, W)``."""
        shape = (self.samples, *image.shape)
        if self.norm == "linf":
            uniform = torch.rand(shape, generator=generator, dtype=image.dtype).to(image.device)
            return self.radius * (2 * uniform - 1)
        direction = torch.randn(shape, generator=generator, dtype=image.dtype)
        length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        share = torch.rand(self.samples, 1, 1, 1, generator=generator, dtype=image.dtype) ** (1 / image.numel())
        offsets: Tensor = self.radius * share * direction / length
        return offsets.to(image.device)


def fit_reverse_weibull(maxima: npt.NDArray[np.float64]) -> Fit:
    """Fit a reverse Weibull distribution to maxima ``(B,)`` by maximum likelihood from several shapes; keep the best.

    Maxima without a visible upper end look like a Gumbel distribution, the limit of infinite shape and location: bare
    likelihood then gives a location of millions, and CLEVER is 0. A small penalty on the shape keeps it finite, as one
    on the scale does in the authors' code. Where the best Kolmogorov-Smirnov p-value is below 0.001, the largest
    maximum stands in.
    """
    largest, spread = float(maxima.max()), float(np.ptp(maxima))
    if spread <= CONSTANT * abs(largest):
        return Fit(largest, 1.0, fitted=True)
    best = Fit(largest, 0.0, fitted=False)
    depth = (largest - maxima) / spread  # reversed and scaled: an ordinary Weibull variable above its location
    for start in SHAPES:
        shape, location, scale = _most_likely(depth, start)
        p_value = float(stats.kstest(depth, stats.weibull_min(shape, location, scale).cdf).pvalue)
        if p_value >= max(POOR_FIT, best.p_value):
            best = Fit(largest - location * spread, p_value, fitted=True)
    return best


def _most_likely(depth: npt.NDArray[np.float64], start: float) -> tuple[float, float, float]:
    """Return shape, location and scale of the Weibull distribution that makes ``depth`` (from 0) most likely."""

    def cost(theta: npt.NDArray[np.float64]) -> float:
        shape, location, scale = theta.tolist()
        if min(shape, -location, scale) <= 0:
            return math.inf
        z = (depth - location) / scale
        with np.errstate(over="ignore"):  # a shape that is far off is merely very unlikely
            chance = math.log(shape / scale) + (shape - 1) * np.log(z) - z**shape
        return float(PENALTY * shape**2 - chance.sum())

    found = optimize.minimize(cost, np.array([start, -0.1, 1.0]), method="Nelder-Mead", options={"maxiter": 2000})
    shape, location, scale = found.x.tolist()
    return shape, location, scale


def _target(target: int, margin: float, maxima: npt.NDArray[np.float64], radius: float) -> TargetScore:
    fit = fit_reverse_weibull(maxima)
    score = min(margin / fit.location, radius) if fit.location > 0 else radius
    return TargetScore(target, margin, fit, score)
