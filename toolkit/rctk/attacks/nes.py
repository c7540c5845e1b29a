"""NES: gradients estimated along Gaussian directions, from logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict
from rctk.attacks.case import Case, cases, stacked
from rctk.attacks.checks import at_least, positive, share
from rctk.attacks.differences import slope, steepest
from rctk.attacks.lockstep import Search, lockstep, margin
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


@dataclass(frozen=True, kw_only=True)
class NES:
    """Natural evolution strategies with antithetic Gaussian directions, linf and l2.

    Descends the margin with momentum, projecting into the budget; linf takes the sign of the direction. A probe that
    breaks the image inside the budget is as good as a step. The last candidate with the smallest margin is kept.

    Attributes:
        queries: Most queries per image.
        pairs: Pairs of probes per step; the paper takes 50.
        sigma: Size of a probe per pixel, for a model that resolves it.
        quantum: What the engine resolves in a pixel: ``sigma`` is never smaller. 0 for a float model.
        momentum: Share of the direction that stays from step to step.
        step: Length of one step as a share of ``eps``.

    Reference:
        Ilyas et al., "Black-box Adversarial Attacks with Limited Queries and Information", ICML 2018, section 2.1.
        https://arxiv.org/abs/1804.08598
    """

    name: ClassVar[str] = "nes"
    kind: ClassVar[Kind] = "query"

    queries: int = 1000
    pairs: int = 25
    sigma: float = 1e-3
    quantum: float = 1 / 255
    momentum: float = 0.9
    step: float = 0.3

    def __post_init__(self) -> None:
        at_least(self, 1, "queries", "pairs")
        positive(self, "sigma", "step")
        at_least(self, 0, "quantum")
        share(self, "momentum")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.queries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the candidate with the smallest margin; a broken image leaves at once."""
        found = cases(x, threat, rng, self.queries)
        lockstep(predict, y, found, self._search, margin)
        return stacked(found, x)

    def _search(self, case: Case) -> Search:
        at, direction = case.x, np.zeros_like(case.x)
        width = max(self.sigma, self.quantum)

        def draw(count: int) -> FloatNCHW:
            return case.rng.standard_normal((count, *case.x.shape), dtype=np.float32)

        while case.left > 2:  # two probes and a look at where they lead
            uphill = yield from slope(case, at, width, min(self.pairs, (case.left - 1) // 2), draw)
            direction = self.momentum * direction + (1 - self.momentum) * uphill
            length = np.float32(self.step * case.threat.eps)
            at = case.within(at + length * steepest(direction, case.threat.norm))
            (score,) = yield at[None]
            case.offer(at, score)
