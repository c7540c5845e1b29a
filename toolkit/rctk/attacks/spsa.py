"""SPSA: gradients estimated along random signs and followed with Adam, from logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.adam import Adam
from rctk.attacks.attack import Kind, Predict
from rctk.attacks.case import Case, cases, stacked
from rctk.attacks.checks import at_least, positive
from rctk.attacks.differences import per_pixel, slope
from rctk.attacks.lockstep import Search, lockstep, margin
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


@dataclass(frozen=True, kw_only=True)
class SPSA:
    """Simultaneous perturbation stochastic approximation on the margin, linf and l2.

    Every image has directions of its own. The paper's setting, meant to see through masked gradients, is
    ``spsa:samples=2048,queries=205000``: 100 steps of 2048 probes.

    Attributes:
        queries: Most queries per image.
        samples: Probes per step, half of them on either side.
        delta: Size of a probe in every pixel, for a model that resolves it.
        quantum: What the engine resolves in a pixel: ``delta`` is never smaller. 0 for a float model.
        step: Adam's learning rate as a share of the budget of a pixel.

    Reference:
        Uesato et al., "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks", ICML 2018, section 4.
        https://arxiv.org/abs/1802.05666
    """

    name: ClassVar[str] = "spsa"
    kind: ClassVar[Kind] = "query"

    queries: int = 1000
    samples: int = 50
    delta: float = 0.01
    quantum: float = 1 / 255
    step: float = 0.3

    def __post_init__(self) -> None:
        at_least(self, 1, "queries")
        at_least(self, 2, "samples")
        positive(self, "delta", "step")
        at_least(self, 0, "quantum")

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
        at, adam = case.x, Adam(case.x.shape, pooled=case.threat.norm == "l2")
        width, rate = max(self.delta, self.quantum), self.step * per_pixel(case)

        def draw(count: int) -> FloatNCHW:
            return 2 * case.rng.integers(2, size=(count, *case.x.shape), dtype=np.int8).astype(np.float32) - 1

        while case.left > 2:  # two probes and a look at where they lead
            uphill = yield from slope(case, at, width, min(self.samples // 2, (case.left - 1) // 2), draw)
            at = case.within(at - np.float32(rate) * adam.step(uphill))
            (score,) = yield at[None]
            case.offer(at, score)
