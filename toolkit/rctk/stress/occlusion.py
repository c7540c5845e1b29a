"""A square hides a part of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from rctk.stress.condition import Condition, Indices, draws, to_pixels
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

SIDES = (0.1, 0.2, 0.3)


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """A square on a grid of places; an image survives where no place makes it wrong.

    Attributes:
        side: Side of the square as a share of the shorter side; None for 10, 20 and 30 % one after another.
        places: Places along each side, evenly spread from edge to edge.
        fill: ``mean`` colour of the image, or uniform ``noise`` (the same for all places and all sides of an image).
    """

    name: ClassVar[str] = "occlusion"

    side: float | None = None
    places: int = 5
    fill: Literal["mean", "noise"] = "mean"

    def __post_init__(self) -> None:
        if self.side is not None and not 0 < self.side <= 1:
            raise OptionError(f"occlusion:side is a share above 0 and at most 1, got {self.side}")
        if self.places < 1:
            raise OptionError(f"occlusion:places must be at least 1, got {self.places}")
        if self.fill not in {"mean", "noise"}:
            raise OptionError(f"occlusion:fill must be mean or noise, got {self.fill!r}")

    def conditions(self, seed: int) -> Sequence[Condition]:
        """Return one condition per side."""
        return [self._condition(side, seed) for side in (SIDES if self.side is None else (self.side,))]

    def _condition(self, share: float, seed: int) -> Condition:
        def make(variant: int, images: FloatNCHW, indices: Indices) -> FloatNCHW:
            height, width = images.shape[2:]
            side = max(round(share * min(height, width)), 1)
            row, column = divmod(variant, self.places)
            top, left = (_place(step, self.places, length - side) for step, length in ((row, height), (column, width)))
            out = images.copy()
            out[:, :, top : top + side, left : left + side] = self._filling(images, side, seed, indices)
            return out

        level = f"{100 * share:g} % side"
        count = self.places**2
        return Condition(test=self.name, group=self.name, level=level, variants=count, origin="generated", make=make)

    def _filling(self, images: FloatNCHW, side: int, seed: int, indices: Indices) -> FloatNCHW:
        if self.fill == "mean":
            return to_pixels(images.mean(axis=(2, 3), keepdims=True, dtype=np.float64))
        shape = (images.shape[1], *images.shape[2:])
        noise = [draws(seed, self.name, index).random(shape)[:, :side, :side] for index in indices]
        return to_pixels(np.stack(noise)) if noise else images[:, :, :side, :side]


def _place(step: int, places: int, last: int) -> int:
    """Return the first pixel of place ``step``; a single place is the middle."""
    return round(last * step / (places - 1)) if places > 1 else last // 2
