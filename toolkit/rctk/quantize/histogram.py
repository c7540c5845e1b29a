"""Counts of values in equal bins: what a calibrator needs to know about a tensor, in memory that does not grow."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rctk.quantize.minmax import RunningRange

BINS = 8192
SAMPLE = 16384
"""Values of one batch that are counted at most; every value takes part in the extremes."""


class Histogram:
    """Counts in ``BINS`` equal bins around zero; for a value outside, neighbouring bins merge and the span doubles.

    Of a large batch every ``n``-th value is counted, ``n`` odd, so that all columns of an image are met.

    Attributes:
        seen: Extremes of all values.
        limit: The bins span ``[-limit, limit]``.
        counts: ``(BINS,)``.
    """

    def __init__(self) -> None:
        self.seen = RunningRange()
        self.limit = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.int64)

    def update(self, values: Tensor) -> None:
        """See :class:`rctk.quantize.observer.Observer`."""
        self.seen.update(values)
        largest = max(abs(self.seen.low), abs(self.seen.high))
        if self.limit == 0:
            self.limit = largest
        if largest == 0 or not math.isfinite(largest):
            return  # all zero so far, or a range that the writer refuses by name
        while self.limit < largest:
            self._double()
        flat = values.reshape(-1)
        stride = -(-flat.numel() // SAMPLE) | 1
        bins = ((flat[::stride] + self.limit) * (BINS / 2 / self.limit)).to(torch.int32).clamp_(0, BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS)

    def _double(self) -> None:
        inner = self.counts.view(-1, 2).sum(dim=1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[BINS // 4 : 3 * BINS // 4] = inner
        self.limit *= 2

    @property
    def empty(self) -> bool:
        """Whether nothing was counted: no value, or only zeros, or some that are not finite."""
        return not bool(self.counts.any())

    @property
    def width(self) -> float:
        """Real width of a bin."""
        return 2 * self.limit / BINS

    def centres(self) -> npt.NDArray[np.float64]:
        """Return the middle of every bin, ``(BINS,)``."""
        return np.asarray((np.arange(BINS) + 0.5) * self.width - self.limit, dtype=np.float64)

    def magnitudes(self) -> npt.NDArray[np.float64]:
        """Return counts of ``|x|`` in bins of the same width from 0 to the largest value seen; 2,049 to 4,096 bins."""
        counts = self.counts.numpy().astype(np.float64)
        folded = counts[BINS // 2 :] + counts[BINS // 2 - 1 :: -1]
        used = math.ceil(max(abs(self.seen.low), abs(self.seen.high)) / self.width - 1e-9)
        return folded[: max(used, 1)]

    def within(self, low: float, high: float) -> tuple[float, float]:
        """Return ``[low, high]`` without what lies outside the values seen."""
        return max(self.seen.low, low), min(self.seen.high, high)
