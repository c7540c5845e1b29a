"""SurFree: circles through the original and the border, from labels alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict, require_norm
from rctk.attacks.case import Case, FloatCHW, cases, stacked
from rctk.attacks.checks import at_least, positive
from rctk.attacks.dct import image_of, low
from rctk.attacks.decision_start import Donors, start, wrong
from rctk.attacks.lockstep import Reply, Search, fooled, lockstep
from rctk.data.split import Labels
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

MOST = np.pi / 6
"""Largest angle that a direction is tried at."""
CAUTION = 0.98
"""Factor of the largest angle after a direction without success, and its inverse after one with."""
REMEMBERED = 100
"""Directions that the next one is orthogonal to."""


@dataclass(frozen=True, kw_only=True)
class SurFree:
    """SurFree, l2, from labels alone and without estimating gradients.

    In the plane of the current misclassified image and a random direction lies a circle that passes through it and
    the original; every point of it is nearer to the original. A few of them are tried, on both sides, and around the
    first that is misclassified the angle is bisected. Directions are smooth and orthogonal to the ones before.

    Attributes:
        queries: Most queries per image, the start included.
        angles: Angles per side.
        frequencies: Share of the frequencies, in height and in width, that directions are made of.
        tolerance: Where a bisection ends, in distance, for a model that resolves it.
        quantum: What the engine resolves in a pixel: the tolerance is never smaller. 0 for a float model.

    Reference:
        Maho, Furon and Le Merrer, "SurFree: a fast surrogate-free black-box attack", CVPR 2021, algorithm 1.
        https://arxiv.org/abs/2011.12807
    """

    name: ClassVar[str] = "surfree"
    kind: ClassVar[Kind] = "query"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    labels_only: ClassVar[bool] = True

    queries: int = 1000
    angles: int = 3
    frequencies: float = 0.25
    tolerance: float = 1e-3
    quantum: float = 1 / 255

    def __post_init__(self) -> None:
        at_least(self, 1, "queries", "angles")
        if not 0 < self.frequencies <= 1:
            raise OptionError(f"surfree:frequencies is a share in (0, 1], got {self.frequencies}")
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
        lockstep(predict, y, found, partial(self._search, Donors(x, y)), fooled)
        return stacked(found, x)

    def _search(self, donors: Donors, case: Case) -> Search:
        tolerance = max(self.tolerance, self.quantum)
        near = yield from start(case, donors.of(case), tolerance)
        if near is None:
            return
        most, directions = MOST, _Directions(case, self.frequencies)
        while True:
            arc = _Arc(case, near, directions.draw(near))
            better = yield from self._turn(arc, most, tolerance)
            most = min(most / CAUTION, MOST) if better is not None else most * CAUTION
            if better is not None:
                near = better
                if case.distance(near) <= case.threat.eps + tolerance:
                    yield case.project(near[None])

    def _turn(self, arc: _Arc, most: float, tolerance: float) -> Generator[FloatNCHW, Reply, FloatCHW | None]:
        """Return a nearer misclassified image on the circle, or ``None``; larger angles first, both sides in turn."""
        for part in range(self.angles, 0, -1):
            for side in (1, -1):
                angle = side * most * part / self.angles
                found = yield from arc.ask(angle)
                if found is not None:
                    beyond = side * min(most * (part + 1) / self.angles, np.pi / 2)
                    return (yield from arc.bisect(found, angle, beyond, tolerance))
        return None


class _Directions:
    """Draws smooth directions, each orthogonal to the ones before; they are remembered as coefficients of cosines."""

    def __init__(self, case: Case, frequencies: float) -> None:
        c, h, w = case.x.shape
        self._case, self._size = case, (c, low(h, frequencies), low(w, frequencies))
        self._before = np.zeros((REMEMBERED, int(np.prod(self._size))), dtype=np.float32)
        self._drawn = 0

    def draw(self, near: FloatCHW) -> FloatCHW:
        """Return a direction of length 1 that is orthogonal to the way from ``near`` to the original."""
        drawn = _unit(self._case.rng.standard_normal(self._before.shape[1], dtype=np.float32))
        fresh = drawn - self._before.T @ (self._before @ drawn)
        if (fresh**2).sum() < 1e-6:  # the directions before fill the space: begin again
            self._before[:] = 0
            fresh = drawn
        fresh = _unit(fresh - self._before.T @ (self._before @ fresh))  # once more, for what rounding left
        self._before[self._drawn % REMEMBERED] = fresh
        self._drawn += 1
        image = image_of(fresh.reshape(self._size), *near.shape[1:])
        inwards = _unit(near - self._case.x)
        return _unit(image - inwards * (inwards * image).sum())


class _Arc:
    """The circle with the way from the original to ``near`` as its diameter, in the plane of ``direction``."""

    def __init__(self, case: Case, near: FloatCHW, direction: FloatCHW) -> None:
        self._case, self._direction = case, direction
        self._distance = case.distance(near)
        self._inwards = _unit(near - case.x)

    def ask(self, angle: float) -> Generator[FloatNCHW, Reply, FloatCHW | None]:
        """Return the point at ``angle`` from ``near`` as seen from the original, where it is misclassified."""
        way = np.float32(np.cos(angle)) * self._inwards + np.float32(np.sin(angle)) * self._direction
        point = self._case.x + np.float32(self._distance * np.cos(angle)) * way
        return (yield from wrong(self._case, np.asarray(point, dtype=np.float32)))

    def bisect(
        self, found: FloatCHW, good: float, bad: float, tolerance: float
    ) -> Generator[FloatNCHW, Reply, FloatCHW]:
        """Return the misclassified point nearest to the original between the angles, the one at ``good`` being one."""
        while self._distance * abs(np.cos(good) - np.cos(bad)) > tolerance:
            middle = (good + bad) / 2
            nearer = yield from self.ask(middle)
            if nearer is None:
                bad = middle
            else:
                found, good = nearer, middle
        return found


def _unit(image: FloatCHW) -> FloatCHW:
    """Return the image at length 1, or as it is where it is 0."""
    length = np.sqrt((image.astype(np.float64) ** 2).sum())
    result: FloatCHW = (image / np.maximum(length, 1e-30)).astype(np.float32)
    return result
