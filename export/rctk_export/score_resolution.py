"""How finely an engine resolves its logits: what a score attack can see of a small change. NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rctk_export.input_spec import FloatNK

COARSE_VALUES = 1000
"""Logits with fewer distinct values than this, and than a quarter of all, hide small changes."""
COARSE_TIES = 0.01
"""Share of tied images from which on the class hangs on the order of the classes."""


class Resolution(NamedTuple):
    """How finely an engine's logits are resolved on some images.

    Attributes:
        distinct: Distinct values over all logits.
        values: Number of logits.
        tied: Share of images whose two largest logits are equal.
        step: Smallest difference between two values of one class; 0 where no class has two.
    """

    distinct: int
    values: int
    tied: float
    step: float

    @property
    def coarse(self) -> bool:
        """Whether score attacks are starved by rounding, so that their failure says little."""
        return (self.distinct < self.values / 4 and self.distinct < COARSE_VALUES) or self.tied > COARSE_TIES

    def sentence(self) -> str:
        """Word what a report should say."""
        return (
            f"{self.distinct} distinct values in {self.values} logits, smallest step {self.step:.1e}, {self.tied:.1%} "
            "of the images tied"
        )


def score_resolution(logits: FloatNK) -> Resolution:
    """Measure the resolution of ``logits`` ``(N, K)``.

    Example:
        >>> score_resolution(np.array([[1.0, 1.0, 0.0], [2.0, 0.5, 0.0]], dtype=np.float32))
        Resolution(distinct=4, values=6, tied=0.5, step=0.5)
    """
    top = np.sort(logits, axis=1)[:, -2:]
    tied = float((top[:, 0] == top[:, -1]).mean()) if logits.shape[1] > 1 and len(logits) else 0.0
    gaps = np.diff(np.sort(logits, axis=0), axis=0)
    steps = gaps[gaps > 0]
    return Resolution(int(np.unique(logits).size), int(logits.size), tied, float(steps.min()) if steps.size else 0.0)
