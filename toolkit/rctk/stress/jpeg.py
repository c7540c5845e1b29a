"""Falling JPEG quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rctk.stress.codec import through_jpeg
from rctk.stress.condition import Condition, Indices
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Images stored as JPEG at falling quality, as a camera or a network stores them; 4:2:0, by Pillow.

    Attributes:
        best: Quality of the first level.
        worst: Quality of the last level, at least 1.
        step: Between two levels.
    """

    name: ClassVar[str] = "jpeg"

    best: int = 90
    worst: int = 10
    step: int = 20

    def __post_init__(self) -> None:
        if not (1 <= self.worst <= self.best <= 100 and self.step >= 1):
            raise OptionError(
                f"jpeg needs 1 <= worst <= best <= 100 and step >= 1, got {self.worst}, {self.best} and {self.step}"
            )

    def conditions(self, seed: int) -> Sequence[Condition]:
        """Return one condition per quality; nothing is random."""
        del seed
        return [self._condition(quality) for quality in range(self.best, self.worst - 1, -self.step)]

    def _condition(self, quality: int) -> Condition:
        def make(_: int, images: FloatNCHW, __: Indices) -> FloatNCHW:
            return through_jpeg(images, quality)

        return Condition(
            test=self.name, group=self.name, level=f"quality {quality}", variants=1, origin="generated", make=make
        )
