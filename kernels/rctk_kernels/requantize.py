"""From exact sums to codes of the next layer, and sums of two differently scaled tensors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rctk_kernels.qparams import Codes, QParams, Real, dequantize, quantize


def rescale(sums: npt.NDArray[np.integer], scale: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> Real:
    """Give ``sums * scale + bias`` in float64: the real value of a layer's output.

    Args:
        sums: Integer sums of products of codes.
        scale: ``scale_x * scale_w``, multiplied in float64 *before* it meets the sums; broadcasts over ``sums``.
        bias: Real; broadcasts over ``sums``.
    """
    real: Real = np.asarray(sums) * np.asarray(scale, dtype=np.float64)
    return real if bias is None else real + np.asarray(bias, dtype=np.float64)


def requantize(
    sums: npt.NDArray[np.integer], q: QParams, *, scale: npt.ArrayLike, bias: npt.ArrayLike | None = None
) -> Codes:
    """Bring integer sums onto the grid ``q`` of the next layer; arguments as in :func:`rescale`.

    Example:
        >>> requantize(np.array([10, -10]), QParams(0.5), scale=0.25 * 0.5, bias=0.25).tolist()  # 1.5 and -1.0
        [3, -2]
    """
    return quantize(rescale(sums, scale, bias), q)


def add(codes_a: npt.NDArray[np.integer], a: QParams, codes_b: npt.NDArray[np.integer], b: QParams) -> Real:
    """Add two tensors of codes, each on its own grid, in float64.

    Example:
        >>> add(np.array([2]), QParams(0.5), np.array([4]), QParams(0.25, zero=3)).tolist()
        [1.25]
    """
    return dequantize(codes_a, a) + dequantize(codes_b, b)
