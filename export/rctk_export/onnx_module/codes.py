"""Integer codes with the grid that gives them a value."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


def along(values: Tensor, ndim: int, axis: int | None) -> Tensor:
    """Shape one value per channel so that it broadcasts along ``axis`` of ``ndim`` axes; a single value has no axes."""
    if axis is None:
        return values.reshape(())
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


@dataclass(eq=False)
class Codes:
    """Integers that stand for ``(q - zero) * scale``.

    Attributes:
        q: Integer-valued floats.
        scale: One value, or one per channel along ``axis``.
        zero: Likewise; None where it is subtracted already.
        axis: None for one scale per tensor.
        fixed: Whether they are weights, whose value is worth keeping.

    Example:
        >>> codes = Codes(torch.tensor([3.0, 5.0]), torch.tensor(0.5), torch.tensor(3.0), None)
        >>> codes.real()
        tensor([0., 1.])
    """

    q: Tensor
    scale: Tensor
    zero: Tensor | None
    axis: int | None
    fixed: bool = False
    _value: Tensor | None = field(default=None, repr=False)

    def centred(self) -> Tensor:
        """Return ``q - zero``."""
        return self.q if self.zero is None else self.q - along(self.zero, self.q.ndim, self.axis)

    def real(self) -> Tensor:
        """Return the value that the codes stand for."""
        if self._value is not None:
            return self._value
        if not self.fixed or self.q.requires_grad or self.scale.requires_grad:
            return self.centred() * along(self.scale, self.q.ndim, self.axis)
        with torch.inference_mode(mode=False), torch.no_grad():  # what is kept must serve every mode
            self._value = self.centred() * along(self.scale, self.q.ndim, self.axis)
        return self._value

    def like(self, q: Tensor) -> Codes:
        """Return other codes on the same grid."""
        return Codes(q, self.scale, self.zero, self.axis)
