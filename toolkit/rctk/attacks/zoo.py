"""ZOO: one coordinate at a time, from logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rctk.attacks.adam import Adam
from rctk.attacks.attack import Kind, Predict
from rctk.attacks.case import Case, FloatCHW, cases, stacked
from rctk.attacks.checks import at_least, positive
from rctk.attacks.differences import per_pixel
from rctk.attacks.lockstep import CHUNK, Search, lockstep, margin
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


@dataclass(frozen=True, kw_only=True)
class ZOO:
    """Zeroth-order optimisation with coordinate-wise Adam, linf and l2.

    Takes symmetric differences of the paper's loss (the margin, which is the same of logits and of log-probabilities)
    along random coordinates. The paper trades that loss against the distance and searches the constant between them;
    here the budget is given, so every step is projected into it instead. A coordinate is a pixel, or with
    ``space`` a block of pixels: the paper's smaller attack space, without which few queries reach few pixels.

    Attributes:
        queries: Most queries per image.
        coordinates: Coordinates per step, two queries each.
        h: Size of a probe, for a model that resolves it.
        quantum: What the engine resolves in a pixel: ``h`` is never smaller. 0 for a float model.
        step: Adam's learning rate as a share of the budget of a pixel.
        space: Side of the attack space in blocks; 0 for single pixels.

    Reference:
        Chen et al., "ZOO: Zeroth Order Optimization Based Black-box Attacks to Deep Neural Networks without Training
        Substitute Models", AISec 2017, algorithms 1 and 2. https://arxiv.org/abs/1708.03999
    """

    name: ClassVar[str] = "zoo"
    kind: ClassVar[Kind] = "query"

    queries: int = 1000
    coordinates: int = 128
    h: float = 1e-4
    quantum: float = 1 / 255
    step: float = 1.0
    space: int = 8

    def __post_init__(self) -> None:
        at_least(self, 1, "queries", "coordinates")
        positive(self, "h", "step")
        at_least(self, 0, "quantum", "space")

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
        blocks = _Blocks(case.x.shape, self.space)
        delta, adam = np.zeros(blocks.count, dtype=np.float32), Adam((blocks.count,), pooled=case.threat.norm == "l2")
        at, rate = case.x, np.float32(self.step * per_pixel(case))
        width = np.float32(max(self.h, self.quantum))
        order = np.empty(0, dtype=np.int64)
        while case.left > 2:  # two probes and a look at where they lead
            if not len(order):
                order = case.rng.permutation(blocks.count)
            wanted = min(self.coordinates, (case.left - 1) // 2)
            chosen, order = order[:wanted], order[wanted:]
            slopes = []
            for part in (chosen[first : first + CHUNK // 2] for first in range(0, len(chosen), CHUNK // 2)):
                probe = width * blocks.spread_each(part)
                heard = yield case.legal(np.concatenate([at + probe, at - probe]))
                slopes.append((heard[: len(part)] - heard[len(part) :]) / (2 * width))
            delta[chosen] -= rate * adam.step(np.concatenate(slopes), chosen)
            at = case.within(case.x + blocks.spread(delta))
            delta = blocks.mean(at - case.x)
            (score,) = yield at[None]
            case.offer(at, score)


class _Blocks:
    """A coarse grid over an image ``(C, H, W)``; its coordinates are numbered 0 .. ``count`` - 1."""

    def __init__(self, shape: tuple[int, ...], side: int) -> None:
        c, h, w = shape
        down, across = (min(side, h), min(side, w)) if side else (h, w)
        rows, columns = np.arange(h) * down // h, np.arange(w) * across // w
        grid = np.arange(c * down * across).reshape(c, down, across)
        self._of_pixel = grid[:, rows[:, None], columns]
        self.count = grid.size
        self._sizes = np.bincount(self._of_pixel.ravel(), minlength=self.count)

    def spread(self, values: npt.NDArray[np.float32]) -> FloatCHW:
        """Give every pixel the value of its block."""
        pixels: FloatCHW = values[self._of_pixel]
        return pixels

    def spread_each(self, chosen: npt.NDArray[np.int64]) -> FloatNCHW:
        """Return one image per chosen block, ``(n, C, H, W)``, 1 in its pixels and 0 elsewhere."""
        return np.asarray(self._of_pixel[None] == chosen[:, None, None, None], dtype=np.float32)

    def mean(self, image: FloatCHW) -> npt.NDArray[np.float32]:
        """Return the mean of every block, ``(count,)``."""
        sums = np.bincount(self._of_pixel.ravel(), weights=image.ravel(), minlength=self.count)
        return np.asarray(sums / self._sizes, dtype=np.float32)
