"""``quant.ptq_static8.entropy``: clip where the clipped and rounded distribution loses least information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rctk.quantize.histogram import Histogram
from rctk_kernels.errors import OptionError

THRESHOLDS = 128
"""Thresholds that are tried, evenly spaced."""


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Threshold with the least Kullback-Leibler divergence between magnitudes before and after rounding.

    For every threshold the tail is counted into the last bin, and the bins below are merged into ``levels`` levels and
    spread again over those that were not empty. Exact zeros, which every grid holds, are not counted as information.

    Attributes:
        levels: Of the rounded distribution; 128 is a signed byte.

    Reference:
        Migacz, "8-bit Inference with TensorRT", GPU Technology Conference 2017.
    """

    levels: int = 128

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 1024:
            raise OptionError(f"entropy:levels must be 2 to 1024, got {self.levels}")

    def observer(self, bits: int = 8) -> EntropyObserver:
        """Return a fresh observer; below 8 bits a code halves the levels."""
        return EntropyObserver(max(self.levels >> (8 - bits), 2))


class EntropyObserver(Histogram):
    """A histogram that chooses its threshold by information.

    Args:
        levels: See :class:`Entropy`.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`; the threshold applies to both signs."""
        if self.empty:
            return self.seen.range()
        counts = self.magnitudes()
        if len(counts) > 1:
            counts[0] = counts[1]
        tried = np.unique(np.linspace(min(self.levels, len(counts)), len(counts), THRESHOLDS).astype(int))
        best = min(tried[::-1], key=lambda last: divergence(counts, int(last), self.levels))
        return self.within(-best * self.width, best * self.width)


def divergence(counts: npt.NDArray[np.float64], last: int, levels: int) -> float:
    """Return ``KL(P || Q)`` in nats: ``P`` is ``counts`` clipped at bin ``last``, ``Q`` its form in ``levels`` levels.

    Example:
        >>> divergence(np.array([4.0, 4.0, 0.0, 8.0]), 4, 2)
        0.0
    """
    kept = counts[:last]
    clipped = kept.copy()
    clipped[-1] += counts[last:].sum()
    level = np.arange(last) * levels // last
    filled = kept > 0
    share = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    spread = np.where(filled, share[level], 0.0)
    total, rounded = clipped.sum(), spread.sum()
    there = clipped > 0
    if not total or not rounded:
        return float("inf")
    p = clipped[there] / total
    q = np.maximum(spread[there] / rounded, 1e-9 / total)  # a last bin that holds nothing but the tail
    return float((p * np.log(p / q)).sum())
