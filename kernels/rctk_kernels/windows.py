"""Sliding windows over images: sizes, padding and the pixels under one tap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window that slides over the two last dimensions of ``(N, C, H, W)``.

    Attributes:
        size: Taps in each direction, (height, width).
        stride: Pixels between two positions.
        padding: Pixels added on each side: (top, left, bottom, right).
        dilation: Pixels between two taps.
        ceil: Keep a last position that hangs over the lower or right edge; it must start inside image or padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """Count the positions of the window over an image, (down, across)."""
        top, left, bottom, right = self.padding
        return self._count(0, height, top, bottom), self._count(1, width, left, right)

    def _count(self, dim: int, length: int, before: int, after: int) -> int:
        reach, stride = (self.size[dim] - 1) * self.dilation[dim] + 1, self.stride[dim]
        free = length + before + after - reach
        if free < 0:
            raise ValueError(
                f"a window of {reach} pixels does not fit into {length} pixels with padding {before}+{after}"
            )
        if not self.ceil:
            return free // stride + 1
        count = -(-free // stride) + 1
        return count - 1 if (count - 1) * stride >= length + before else count

    def pad(self, x: npt.NDArray[Any], value: float) -> npt.NDArray[Any]:
        """Surround ``(N, C, H, W)`` with ``value``, far enough for every position."""
        top, left, bottom, right = self.padding
        down, across = self.positions(*x.shape[2:])
        need_h = (down - 1) * self.stride[0] + (self.size[0] - 1) * self.dilation[0] + 1
        need_w = (across - 1) * self.stride[1] + (self.size[1] - 1) * self.dilation[1] + 1
        bottom, right = max(bottom, need_h - top - x.shape[2]), max(right, need_w - left - x.shape[3])
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)

    def tap(self, padded: npt.NDArray[Any], positions: tuple[int, int], row: int, column: int) -> npt.NDArray[Any]:
        """View the pixels of ``padded`` under one tap, one per position: ``(N, C, down, across)``."""
        top, left = row * self.dilation[0], column * self.dilation[1]
        bottom = top + (positions[0] - 1) * self.stride[0] + 1
        right = left + (positions[1] - 1) * self.stride[1] + 1
        return padded[:, :, top : bottom : self.stride[0], left : right : self.stride[1]]
