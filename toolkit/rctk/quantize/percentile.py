"""``quant.ptq_static8.percentile``: rare large values are clipped, so that the grid is finer for all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rctk.quantize.histogram import BINS, Histogram
from rctk_kernels.errors import OptionError


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

    def observer(self, bits: int = 8) -> PercentileObserver:  # noqa: ARG002  # the share does not depend on the width
        """Return a fresh observer."""
        return PercentileObserver((1 - self.p / 100) / 2)


class PercentileObserver(Histogram):
    """A histogram that cuts its tails.

    Args:
        tail: Share of values to clip at each end, in [0, 0.25).
    """

    def __init__(self, tail: float) -> None:
        super().__init__()
        self.tail = tail

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`; never wider than what was seen."""
        if self.empty:
            return self.seen.range()
        mass = torch.cumsum(self.counts.double(), 0) / self.counts.sum()
        first = int(torch.searchsorted(mass, self.tail, right=True))
        last = min(int(torch.searchsorted(mass, 1 - self.tail)), BINS - 1)
        return self.within(first * self.width - self.limit, (last + 1) * self.width - self.limit)
