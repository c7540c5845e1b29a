"""``quant.ptq_static8.minmax`` with a moving average: extremes of single batches fade."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """Exponential moving average of the minimum and maximum of every batch.

    Attributes:
        weight: Of a new batch, in (0, 1]; the first batch counts whole.
    """

    weight: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise OptionError(f"moving-average:weight must be above 0 and at most 1, got {self.weight}")

    def observer(self, bits: int = 8) -> AveragedRange:  # noqa: ARG002  # the same for every width
        """Return a fresh observer."""
        return AveragedRange(self.weight)


class AveragedRange:
    """Averaged extremes.

    Args:
        weight: Of a new batch.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.low, self.high = math.inf, -math.inf

    def update(self, values: Tensor) -> None:
        """See :class:`rctk.quantize.observer.Observer`."""
        low, high = (float(end) for end in values.aminmax())
        if self.low > self.high:
            self.low, self.high = low, high
            return
        self.low += self.weight * (low - self.low)
        self.high += self.weight * (high - self.high)

    def range(self) -> tuple[float, float]:
        """See :class:`rctk.quantize.observer.Observer`."""
        return self.low, self.high
