"""A share of images with its interval."""

from __future__ import annotations

from typing import NamedTuple

from rctk.evaluation.judge import Flags
from rctk.statistics import wilson


class Share(NamedTuple):
    """``hits`` of ``samples`` images.

    Attributes:
        hits: Images counted.
        samples: Images in all.
        low: Lower end of Wilson's 95 % interval.
        high: Upper end.
    """

    hits: int
    samples: int
    low: float
    high: float

    @classmethod
    def of(cls, counted: Flags, among: Flags | None = None) -> Share:
        """Count ``counted`` ``(n,)`` among all images, or among those of ``among`` ``(n,)``.

        Example:
            >>> import numpy as np
            >>> Share.of(np.array([True, False, False, False])).value
            0.25
        """
        within = counted if among is None else counted & among
        samples = len(counted) if among is None else int(among.sum())
        return cls(int(within.sum()), samples, *wilson(int(within.sum()), samples))

    @property
    def value(self) -> float | None:
        """The share; None where there are no images."""
        return self.hits / self.samples if self.samples else None
