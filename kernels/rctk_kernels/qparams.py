"""Integer grids: which real value a code stands for, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import QuantizationError

Codes = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QParams:
    """A grid of equally spaced real values: code ``q`` stands for ``(q - zero) * scale``.

    Attributes:
        scale: Real length of one step, positive float32; one number, or ``(C,)`` along ``axis``.
        zero: Code of real 0; one number, or ``(C,)`` along ``axis``.
        low: Smallest code.
        high: Largest code.
        axis: Dimension of the tensor along which ``scale`` and ``zero`` vary; None for one grid.

    Example:
        >>> QParams(0.5, zero=3) == QParams(0.5, zero=3, low=-128)
        True
    """

    scale: npt.ArrayLike
    zero: npt.ArrayLike = 0
    low: int = -128
    high: int = 127
    axis: int | None = None

    def __post_init__(self) -> None:
        scale, zero = np.asarray(self.scale, dtype=np.float32), np.asarray(self.zero, dtype=np.int64)
        if scale.ndim > 1 or zero.ndim > 1 or zero.size not in {1, scale.size}:
            raise QuantizationError(
                f"scale and zero point must be numbers or equally long vectors, got {scale.shape} and {zero.shape}"
            )
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise QuantizationError(f"a scale must be positive and finite, got {scale[()]}")
        if scale.size == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        elif self.axis is None:
            raise QuantizationError(f"{scale.size} scales need the axis along which they vary")
        axis = None if scale.ndim == 0 else self.axis
        zero = np.broadcast_to(zero, scale.shape).copy()
        if self.low >= self.high or (zero < self.low).any() or (zero > self.high).any():
            raise QuantizationError(f"zero point {zero[()]} must lie in the range of codes {self.low}..{self.high}")
        scale = scale.copy()
        scale.flags.writeable = zero.flags.writeable = False
        for name, value in (("scale", scale), ("zero", zero), ("axis", axis)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        same_range = (self.low, self.high, self.axis) == (other.low, other.high, other.axis)
        return same_range and np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)

    def __hash__(self) -> int:
        return hash((np.asarray(self.scale).tobytes(), np.asarray(self.zero).tobytes(), self.low, self.high, self.axis))

    def on_axis(self, axis: int | None) -> QParams:
        """Return the same grid along another axis."""
        return QParams(self.scale, self.zero, self.low, self.high, axis)

    @property
    def step(self) -> Real:
        """``()`` or ``(C,)``: the scale, exactly, in float64."""
        return np.asarray(self.scale, dtype=np.float64)

    @property
    def origin(self) -> Codes:
        """``()`` or ``(C,)``: the zero point in int64."""
        return np.asarray(self.zero, dtype=np.int64)

    def grid(self, ndim: int) -> tuple[Real, Codes]:
        """Return ``step`` and ``origin`` shaped so that they broadcast over a tensor of ``ndim`` dimensions."""
        if self.axis is None:
            return self.step, self.origin
        if not -ndim <= self.axis < ndim:
            raise QuantizationError(f"axis {self.axis} does not exist in a tensor of {ndim} dimensions")
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.step.reshape(shape), self.origin.reshape(shape)


def quantize(x: npt.NDArray[np.floating], q: QParams) -> Codes:
    """Give the code nearest to every real value: ``clip(rint(x / scale) + zero, low, high)``, ties to even, in float64.

    Infinite values take the last code on their side; NaN has no code and is refused.

    Example:
        >>> quantize(np.array([-0.25, 0.25, 0.75, 100]), QParams(0.5, zero=3)).tolist()
        [3, 3, 5, 127]
    """
    real = np.asarray(x, dtype=np.float64)
    if np.isnan(real).any():
        raise QuantizationError("cannot quantize NaN; look for NaN in the images, or Inf in the weights")
    step, origin = q.grid(real.ndim)
    codes: Real = np.clip(np.rint(real / step) + origin, q.low, q.high)
    return codes.astype(np.int64)


def dequantize(codes: npt.NDArray[np.integer], q: QParams) -> Real:
    """Give the real value of every code, ``(codes - zero) * scale``, in float64.

    Example:
        >>> dequantize(np.array([3, 5, 127]), QParams(0.5, zero=3)).tolist()
        [0.0, 1.0, 62.0]
    """
    step, origin = q.grid(np.ndim(codes))
    real: Real = (np.asarray(codes, dtype=np.int64) - origin) * step
    return real
