"""What a calibrator is: it makes one observer per tensor, and the observer turns values into a range."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Observer(Protocol):
    """Sees the values of one tensor, batch by batch; its memory does not grow with their number."""

    def update(self, values: Tensor) -> None:
        """Take in one batch; any shape, float."""
        ...

    def range(self) -> tuple[float, float]:
        """Return the smallest and largest value that the grid must represent."""
        ...


class Calibrator(Protocol):
    """A row of the calibrator table: settings that make observers."""

    def observer(self, bits: int = 8) -> Observer:
        """Return a fresh observer for one tensor whose codes have ``bits`` bits."""
        ...
