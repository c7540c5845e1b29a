"""``quant.ptq_static8.mse``: clip where rounding and clipping together do the least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rctk.quantize.histogram import BINS, Histogram
from rctk_kernels.errors import OptionError

MERGED = 2
"""Bins that are merged for the search: 4,096 are still 8 to 16 for one step of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Mse:
    """Range with the least mean squared error between values and their codes.

    Attributes:
        points: Ranges that are tried.
        least: Smallest of them as a share of the range that was seen.
    """

    points: int = 100
    least: float = 0.2

    def __post_init__(self) -> None:
        if self.points < 2 or not 0 < self.least < 1:
            raise OptionError(f"mse needs 2 points or more and 0 < least < 1, got {self.points} and {self.least}")

    def observer(self, bits: int = 8) -> MseObserver:
        """Return a fresh observer."""
        return MseObserver(np.linspace(self.least, 1, self.points), bits)


class MseObserver(Histogram):
    """A histogram that chooses its range by squared error.

    Args:
        shares: Ranges to try, as shares of what was seen; ``(P,)``, ascending, the last one 1.
        bits: Width of the codes.
    """

    def __init__(self, shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]], bits: int) -> None:
        super().__init__()
        self.shares, self.bits = shares, bits

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`; both ends shrink by the same share."""
        if self.empty:
            return self.seen.range()
        counts = self.counts.numpy().reshape(-1, MERGED).sum(axis=1)
        centres = self.centres().reshape(BINS // MERGED, MERGED).mean(axis=1)[counts > 0].astype(np.float32)
        low, high = min(self.seen.low, 0.0), max(self.seen.high, 0.0)
        step = ((high - low) * self.shares / (2**self.bits - 1)).astype(np.float32)[:, None]
        zero = np.rint(-low * self.shares / step[:, 0])[:, None].astype(np.float32)
        codes = np.clip(np.rint(centres / step), -zero, 2**self.bits - 1 - zero)
        errors = np.square(codes * step - centres) @ counts[counts > 0].astype(np.float32)
        best = float(self.shares[::-1][int(np.argmin(errors[::-1]))])
        return self.within(low * best, high * best)
