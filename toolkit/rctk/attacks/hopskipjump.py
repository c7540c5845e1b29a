"""HopSkipJump: along the border by its estimated normal, from labels alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict, require_norm
from rctk.attacks.case import Case, FloatCHW, cases, stacked
from rctk.attacks.checks import at_least
from rctk.attacks.decision_start import Donors, approach, start, wrong
from rctk.attacks.differences import steepest
from rctk.attacks.lockstep import CHUNK, Reply, Search, fooled, lockstep
from rctk.data.split import Labels
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW

FINISH = 12
"""Queries that the last normal leaves for a step along it and a bisection."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """HopSkipJump, l2 and linf, from labels alone.

    From a misclassified image (of the batch, else noise) to the border; there the normal is estimated from the labels
    of random probes around, a step is taken along it, and the radius is bisected again, but not below ``eps``, where
    the image is broken. The bisection ends, and probes are sized, where the engine still resolves a difference.

    Attributes:
        queries: Most queries per image, the start included.
        evaluations: Probes of the first normal; the ``t``-th takes ``sqrt(t)`` times as many.
        quantum: What the engine resolves in a pixel: the tolerance of a radius and the mean size of a probe per pixel
            are never smaller. 0 for a float model.

    Reference:
        Chen, Jordan and Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", S&P 2020,
        algorithms 1 and 2. https://arxiv.org/abs/1904.02144
    """

    name: ClassVar[str] = "hopskipjump"
    kind: ClassVar[Kind] = "query"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    labels_only: ClassVar[bool] = True

    queries: int = 1000
    evaluations: int = 100
    quantum: float = 1 / 255

    def __post_init__(self) -> None:
        at_least(self, 1, "queries", "evaluations")
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
        near = yield from start(case, donors.of(case), max(self.quantum, 1e-3))
        if near is None:
            return
        for turn in count(1):
            distance = case.distance(near)
            wanted = min(int(self.evaluations * np.sqrt(turn)), max(case.left - FINISH, case.left // 2))
            uphill = yield from _normal(case, near, self._probe(case, distance, first=turn == 1), wanted)
            step = distance / np.sqrt(turn)
            far = yield from _leap(case, near, -steepest(uphill, case.threat.norm), step)
            if far is not None:
                near = yield from approach(case, far, self._tolerance(case, far))

    def _theta(self, case: Case) -> float:
        """Return the paper's tolerance as a share of the distance, ``d^-3/2`` in l2 and ``d^-2`` in linf."""
        return float(case.x.size ** (-2.0 if case.threat.norm == "linf" else -1.5))

    def _tolerance(self, case: Case, point: FloatCHW) -> float:
        return max(self._theta(case) * case.distance(point), self.quantum, 1e-6)

    def _probe(self, case: Case, distance: float, *, first: bool) -> float:
        """Return the l2 length of a probe."""
        size = case.x.size
        scale = size if case.threat.norm == "linf" else np.sqrt(size)
        length = 0.1 if first else float(scale * self._theta(case) * distance)
        return max(length, self.quantum * float(np.sqrt(size)), 1e-5)


def _normal(case: Case, at: FloatCHW, length: float, probes: int) -> Generator[FloatNCHW, Reply, FloatCHW]:
    """Return the direction in which more probes around ``at`` are misclassified (equation 16), ``(C, H, W)``."""
    every, wrong = np.zeros(at.shape), np.zeros(at.shape)
    asked = hits = 0
    while (part := min(probes - asked, case.left, CHUNK)) > 0:
        if case.threat.norm == "linf":
            u = case.rng.random((part, *at.shape), dtype=np.float32) * 2 - 1
        else:
            u = case.rng.standard_normal((part, *at.shape), dtype=np.float32)
        u /= np.sqrt(np.einsum("nchw,nchw->n", u, u))[:, None, None, None]
        points = case.legal(at + np.float32(length) * u)
        heard = yield points
        u = (points - at) / np.float32(length)
        every += u.sum(axis=0)
        wrong += u[heard].sum(axis=0)
        asked, hits = asked + part, hits + int(heard.sum())
    if hits in {0, asked}:
        return (every if hits else -every).astype(np.float32)
    return (wrong - every * (hits / asked)).astype(np.float32)


def _leap(case: Case, near: FloatCHW, way: FloatCHW, step: float) -> Generator[FloatNCHW, Reply, FloatCHW | None]:
    """Return the first misclassified image at ``step``, half of it, a quarter ... along ``way``, if there is one."""
    while step > 1e-4:
        far = yield from wrong(case, near + np.float32(step) * way)
        if far is not None:
            return far
        step /= 2
    return None
