"""RayS: the shortest ray along a vector of signs, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict, require_norm
from rctk.attacks.case import Case, cases, stacked
from rctk.attacks.checks import at_least, positive
from rctk.attacks.decision_start import approach, wrong
from rctk.attacks.lockstep import Search, fooled, lockstep
from rctk.attacks.signhunter import parts
from rctk.data.split import Labels
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW


@dataclass(frozen=True, kw_only=True)
class RayS:
    """Ray search, linf, from labels alone.

    Flips ever smaller parts of a vector of signs. A flip stays when the engine is still fooled at the current radius,
    and only then is the radius bisected. The radius is not bisected below ``eps``, where the image is broken. Starts
    along the diagonal and needs no misclassified image; it draws nothing: seeds do not matter.

    Attributes:
        queries: Most queries per image.
        tolerance: Where a bisection of the radius ends, for a model that resolves it.
        quantum: What the engine resolves in a pixel: the tolerance is never smaller. 0 for a float model.

    Reference:
        Chen and Gu, "RayS: A Ray Searching Method for Hard-label Adversarial Attack", KDD 2020, algorithms 1 to 3.
        https://arxiv.org/abs/2006.12792
    """

    name: ClassVar[str] = "rays"
    kind: ClassVar[Kind] = "query"
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    labels_only: ClassVar[bool] = True

    queries: int = 1000
    tolerance: float = 1e-3
    quantum: float = 1 / 255

    def __post_init__(self) -> None:
        at_least(self, 1, "queries")
        positive(self, "tolerance")
        at_least(self, 0, "quantum")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.queries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the nearest misclassified one found; one inside the budget ends its search."""
        require_norm(self, threat)
        found = cases(x, threat, rng, self.queries)
        lockstep(predict, y, found, self._search, fooled)
        return stacked(found, x)

    def _search(self, case: Case) -> Search:
        signs, radius = np.ones(case.x.size, dtype=np.float32), 1.0
        level, flips = 0, [slice(0, 0)]  # the first question is about the diagonal itself
        while True:
            for flip in flips:
                signs[flip] *= -1
                far = case.x + np.float32(radius) * signs.reshape(case.x.shape)
                point = yield from wrong(case, far)
                if point is not None:
                    near = yield from approach(case, point, max(self.tolerance, self.quantum))
                    radius = min(radius, case.distance(near))
                else:
                    signs[flip] *= -1
            flips = parts(case.x.size, 2**level)
            level += 2**level < case.x.size
