"""One image under a query attack: its budgets, its random numbers and the best candidate so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk.attacks.draws import base_seed, image_seeds
from rctk.threat import LEVELS, ThreatModel
from rctk_export.input_spec import FloatNCHW

FloatCHW: TypeAlias = npt.NDArray[np.float32]
"""One image."""

_NEAR = 1e-5
"""Share of ``eps``: farther than this outside, a point need not be projected to know that it is."""


@dataclass(kw_only=True)
class Case:
    """One image that an attack works on.

    Attributes:
        row: Its position in the batch.
        x: The original ``(C, H, W)``.
        threat: How far a candidate may be from it.
        rng: Random numbers of this image alone, so that its neighbours in the batch do not matter.
        left: Queries that the image may still cost.
        best: The candidate to hand back.
        rank: How good that is; smaller is better.
    """

    row: int
    x: FloatCHW
    threat: ThreatModel
    rng: np.random.Generator
    left: int
    best: FloatCHW = field(init=False)
    rank: float = float("inf")

    def __post_init__(self) -> None:
        self.best = self.x

    def offer(self, image: FloatCHW, rank: float) -> None:
        """Keep ``image`` as the candidate where it ranks better than the one so far; a tie changes nothing."""
        if rank < self.rank:
            self.best, self.rank = image, float(rank)

    def legal(self, points: npt.NDArray[Any]) -> FloatNCHW:
        """Return the images ``(n, C, H, W)`` that can be fed: in [0, 1], and on the levels of a uint8 budget."""
        images: FloatNCHW = np.clip(points.astype(np.float32, copy=False), np.float32(0), np.float32(1))
        if self.threat.grid == "uint8":
            images = np.rint(images * np.float32(LEVELS)) / np.float32(LEVELS)
        return images

    def project(self, points: FloatNCHW) -> FloatNCHW:
        """Return the images ``(n, C, H, W)`` that the judge would make of these points."""
        return self.threat.project(points, self.x[None])

    def within(self, point: FloatCHW) -> FloatCHW:
        """Return the one image that the judge would make of ``point``."""
        image: FloatCHW = self.project(point[None])[0]
        return image

    def inside(self, points: FloatNCHW) -> npt.NDArray[np.bool_]:
        """Say which points the judge would leave as they are, ``(n,)``."""
        result = np.asarray(self.distances(points) <= self.threat.eps * (1 + _NEAR) + 1e-7)
        if result.any():
            near = points[result]
            result[result] = (self.project(near) == near).all(axis=(1, 2, 3))
        return result

    def distances(self, points: FloatNCHW) -> npt.NDArray[np.float32]:
        """Return how far points ``(n, C, H, W)`` are from the original, in the norm of the budget, ``(n,)``."""
        delta = (points - self.x).reshape(len(points), self.x.size)
        if self.threat.norm == "linf":
            largest: npt.NDArray[np.float32] = np.abs(delta).max(axis=1)
            return largest
        length: npt.NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", delta, delta))
        return length

    def distance(self, point: FloatCHW) -> float:
        """Return how far one image is from the original, in the norm of the budget."""
        return float(self.distances(point[None])[0])


def cases(x: FloatNCHW, threat: ThreatModel, rng: np.random.Generator, queries: int) -> list[Case]:
    """Open one case per image of ``x`` ``(N, C, H, W)``, with ``queries`` queries and a random stream each."""
    seeds = image_seeds(x, base_seed(rng))
    return [
        Case(row=row, x=image, threat=threat, rng=np.random.default_rng(int(seed)), left=queries)
        for row, (image, seed) in enumerate(zip(x, seeds, strict=True))
    ]


def stacked(cases_: list[Case], x: FloatNCHW) -> FloatNCHW:
    """Return the best candidates of all cases, shaped like ``x``."""
    out = x.copy()
    for case in cases_:
        out[case.row] = case.best
    return out
