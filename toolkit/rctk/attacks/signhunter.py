"""SignHunter: flips ever smaller parts of a sign vector, from logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict
from rctk.attacks.case import Case, FloatCHW, cases, stacked
from rctk.attacks.checks import at_least
from rctk.attacks.differences import per_pixel
from rctk.attacks.lockstep import Search, lockstep, margin
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


@dataclass(frozen=True, kw_only=True)
class SignHunter:
    """Divide and conquer over the signs of the gradient, linf and l2.

    Every query spends the whole budget, ``eps`` times a vector of signs (in l2 divided by the root of its length), so
    the engine's resolution does not matter. Starts with all signs positive, then flips the whole, its halves, quarters
    and so on, and keeps what lowers the margin. It draws nothing: seeds do not matter.

    Attributes:
        queries: Most queries per image.

    Reference:
        Al-Dujaili and O'Reilly, "Sign Bits Are All You Need for Black-Box Attacks", ICLR 2020, algorithm 2.
        https://openreview.net/forum?id=SygW0TEFwH
    """

    name: ClassVar[str] = "signhunter"
    kind: ClassVar[Kind] = "query"

    queries: int = 1000

    def __post_init__(self) -> None:
        at_least(self, 1, "queries")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.queries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the candidate with the smallest margin; a broken image leaves at once."""
        found = cases(x, threat, rng, self.queries)
        lockstep(predict, y, found, _search, margin)
        return stacked(found, x)


def _search(case: Case) -> Search:
    size = case.x.size
    signs = np.ones(size, dtype=np.float32)
    start = _candidate(case, signs)
    (smallest,) = yield start[None]
    case.offer(start, smallest)
    level = 0
    while True:
        for flip in parts(size, 2**level):
            signs[flip] *= -1
            candidate = _candidate(case, signs)
            (score,) = yield candidate[None]
            if score < smallest:
                smallest = score
                case.offer(candidate, score)
            else:
                signs[flip] *= -1
        level = level + 1 if 2**level < size else 0


def parts(size: int, count: int) -> list[slice]:
    """Cut ``size`` places into ``count`` parts of equal length, the last one shorter; no part is empty.

    Example:
        >>> parts(5, 2)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    length = -(-size // count)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def _candidate(case: Case, signs: FloatCHW) -> FloatCHW:
    return case.within(case.x + np.float32(per_pixel(case)) * signs.reshape(case.x.shape))
