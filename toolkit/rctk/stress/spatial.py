"""Rotations and shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rctk.stress.condition import Condition, Indices, draws
from rctk.stress.resample import sample
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

ANGLES, SHIFTS = 31, 5
"""Angles, and shifts along each side, of the grid."""


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Rotate and shift; an image survives where no try makes it wrong. Black comes in from outside, pixels are linear.

    Reference:
        Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019. https://arxiv.org/abs/1712.02779

    Attributes:
        degrees: Largest rotation to either side.
        shift: Largest shift along each side, as a share of that side.
        search: ``random`` for some tries per image, ``grid`` for 31 rotations times 5 times 5 shifts.
        tries: Random tries per image.
    """

    name: ClassVar[str] = "spatial"

    degrees: float = 30.0
    shift: float = 0.1
    search: Literal["random", "grid"] = "random"
    tries: int = 10

    def __post_init__(self) -> None:
        if not (0 <= self.degrees <= 180 and 0 <= self.shift < 1):
            raise OptionError(
                f"spatial needs degrees in [0, 180] and shift in [0, 1), got {self.degrees} and {self.shift}"
            )
        if self.search not in {"random", "grid"} or self.tries < 1:
            raise OptionError(
                f"spatial needs search random or grid and tries of at least 1, got {self.search!r} and {self.tries}"
            )

    def conditions(self, seed: int) -> Sequence[Condition]:
        """Return the one condition."""

        def make(variant: int, images: FloatNCHW, indices: Indices) -> FloatNCHW:
            return np.stack(
                [moved(image, *self._pose(variant, seed, int(i))) for image, i in zip(images, indices, strict=True)]
                or [np.empty(images.shape[1:], dtype=np.float32)]
            )[: len(images)]

        count = self.tries if self.search == "random" else ANGLES * SHIFTS**2
        level = f"{self.degrees:g} deg, {100 * self.shift:g} %, {self.search}"
        return [Condition(test=self.name, group=self.name, level=level, variants=count, origin="generated", make=make)]

    def _pose(self, variant: int, seed: int, index: int) -> tuple[float, float, float]:
        """Return degrees, and shifts down and right as shares of the sides."""
        if self.search == "random":
            unit = draws(seed, f"{self.name} {variant}", index).uniform(-1, 1, 3)
        else:
            angle, place = divmod(variant, SHIFTS**2)
            down, right = divmod(place, SHIFTS)
            unit = np.array([_spread(angle, ANGLES), _spread(down, SHIFTS), _spread(right, SHIFTS)])
        return self.degrees * unit[0], self.shift * unit[1], self.shift * unit[2]


def _spread(step: int, count: int) -> float:
    return 2 * step / (count - 1) - 1


def moved(image: npt.NDArray[np.float32], degrees: float, down: float, right: float) -> npt.NDArray[np.float32]:
    """Turn an image ``(C, H, W)`` about its centre, against the clock, then shift it by shares of its sides."""
    height, width = image.shape[1:]
    rows, columns = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width), indexing="ij")
    row, column = rows - (height - 1) / 2 - down * height, columns - (width - 1) / 2 - right * width
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    source = sample(
        image, cos * row + sin * column + (height - 1) / 2, cos * column - sin * row + (width - 1) / 2, None
    )
    return np.clip(source, 0, 1).astype(np.float32)
