"""``quant.ptq_static8.percentile``: rare large values are clipped, so that the grid is finer for all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rctk.quantize.minmax import RunningRange
from rctk_kernels.errors import OptionError

BINS = 8192


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """Two-sided percentile of a histogram.

    Attributes:
        p: Percent of all values inside the range; half of the rest is clipped at either end.
    """

    p: float = 99.999

    def __post_init__(self) -> None:
        if not 50 < self.p <= 100:
            raise OptionError(f"percentile:p must be above 50 and at most 100, got {self.p}")

    def observer(self) -> Histogram:
        """Return a fresh observer."""
        return Histogram((1 - self.p / 100) / 2)


class Histogram:
    """Counts in ``BINS`` equal bins around zero; for a value outside, neighbouring bins merge and the span doubles.

    Args:
        tail: Share of values to clip at each end, in [0, 0.25).
    """

    def __init__(self, tail: float) -> None:
        self.tail = tail
        self.seen = RunningRange()
        self.limit = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """See :class:`rctk.quantize.observer.Observer`."""
        self.seen.update(values)
        largest = max(abs(self.seen.low), abs(self.seen.high))
        if self.limit == 0:
            self.limit = largest
        if largest == 0 or not torch.isfinite(torch.tensor(largest)):
            return  # all zero so far, or a range that the writer refuses by name
        while self.limit < largest:
            self._double()
        self.counts += torch.histc(values.float(), BINS, -self.limit, self.limit).double()

    def _double(self) -> None:
        inner = self.counts.view(-1, 2).sum(dim=1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[BINS // 4 : 3 * BINS // 4] = inner
        self.limit *= 2

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`; never wider than what was seen."""
        if not self.counts.any():
            return self.seen.range()
        mass = torch.cumsum(self.counts, 0) / self.counts.sum()
        width = 2 * self.limit / BINS
        first = int(torch.searchsorted(mass, self.tail, right=True))
        last = int(torch.searchsorted(mass, 1 - self.tail))
        low = max(self.seen.low, first * width - self.limit)
        high = min(self.seen.high, (min(last, BINS - 1) + 1) * width - self.limit)
        return low, high
