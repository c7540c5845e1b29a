"""Square attack: random search with squares, from logits alone, in NumPy."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks import square_moves
from rctk.attacks.attack import Kind, Predict, ask
from rctk.attacks.draws import base_seed, image_seeds, words
from rctk.data.split import Labels
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10 000, after which the area of the square halves."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Square attack, linf, l2 and l1.

    Starts at stripes (linf) or tiles (l2, l1) of the full budget, then tries one random square per query and keeps it
    when the margin falls. Positions and colours are drawn per image; the published code draws them once per batch,
    which makes outcomes of neighbours depend on each other. A square that would change nothing is tried with its
    colours reversed. Success is what the engine's argmax says: a tie is none.

    Attributes:
        queries: Most queries per image, the start included.
        p_init: Area of the first squares as a share of the image.
        rescale: Scale the schedule of areas, made for 10,000 queries, to the budget; AutoAttack does not.

    Reference:
        Andriushchenko et al., "Square Attack", ECCV 2020, algorithms 1 to 3. https://arxiv.org/abs/1912.00049
    """

    name: ClassVar[str] = "square"
    kind: ClassVar[Kind] = "query"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    packs: ClassVar[bool] = True

    queries: int = 1000
    p_init: float = 0.8
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise OptionError(f"square:queries must be at least 1, got {self.queries}")
        if not 0 < self.p_init <= 1:
            raise OptionError(f"square:p_init is a share of the image in (0, 1], got {self.p_init}")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.queries

    def area(self, query: int) -> float:
        """Return the share of the image that the square of query number ``query`` covers."""
        scaled = int(query / self.queries * 10_000) if self.rescale else query
        return self.p_init / (1 << bisect_left(HALVINGS, scaled))

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the candidate with the smallest margin; a broken image leaves at once."""
        moves = square_moves.MOVES[threat.norm]
        eps, shape = np.float32(threat.eps), x.shape[1:]
        x = np.ascontiguousarray(x)
        out, rows = x.copy(), np.arange(len(x))
        seeds = image_seeds(x, base_seed(rng))
        current = moves.start(x, seeds, eps)
        smallest, broken = ask(predict, current, y, rows)
        for query in range(1, self.queries):
            if broken.any():
                out[rows[broken]] = current[broken]
                left = ~broken
                rows, x, y, seeds = rows[left], x[left], y[left], seeds[left]
                current, smallest = current[left], smallest[left]
            if not len(rows):
                return out
            draws = words(seeds, moves.draws * query, moves.draws)
            candidate, settle = moves.propose(current, x, moves.side(self.area(query - 1), shape), draws, eps)
            margin, broken = ask(predict, candidate, y, rows)
            better = (margin < smallest) | broken
            settle(better)
            smallest = np.where(better, margin, smallest)
        out[rows] = current
        return out
