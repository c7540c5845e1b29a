"""``quant.ptq_static8.minmax``: the grid covers every value that calibration saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """Running minimum and maximum; nothing is clipped, a single outlier widens the grid."""

    def observer(self, bits: int = 8) -> RunningRange:  # noqa: ARG002  # the same for every width
        """Return a fresh observer."""
        return RunningRange()


class RunningRange:
    """Smallest and largest value so far."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, values: Tensor) -> None:
        """See :class:`rctk.quantize.observer.Observer`."""
        low, high = values.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`."""
        return self.low, self.high
