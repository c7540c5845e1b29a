"""Sums of products over integer codes: convolution and matrix product.

Codes are centred on their zero points, multiplied and summed. Products run in float64 through BLAS, which is exact
while no sum can reach 2**53; anything larger is refused.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import QuantizationError
from rctk_kernels.qparams import Codes, Real
from rctk_kernels.windows import Window

EXACT = 2**53
"""Integers up to here are exact in float64."""


def conv2d(  # noqa: PLR0913 (a quantized convolution has these eight arguments)
    codes_x: npt.NDArray[np.integer],
    codes_w: npt.NDArray[np.integer],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    zero_x: int = 0,
    zero_w: npt.ArrayLike = 0,
) -> Codes:
    """Sum ``(x - zero_x) * (w - zero_w)`` under every position of the kernel.

    Args:
        codes_x: ``(N, C, H, W)``.
        codes_w: ``(O, C / groups, kernel height, kernel width)``.
        stride: (down, across).
        padding: (top, left, bottom, right); padded pixels hold ``zero_x``, that is real 0.
        dilation: (down, across).
        groups: Blocks of channels that do not see each other.
        zero_x: Zero point of ``x``.
        zero_w: Zero point of ``w``, a number or ``(O,)``.

    Returns:
        ``(N, O, H', W')`` exact sums in int64.

    Example:
        >>> x, w = np.array([[[[1, 2], [3, 4]]]]), np.array([[[[1, -1], [2, 0]]]])
        >>> conv2d(x, w, zero_x=1).tolist()  # 0*1 + 1*-1 + 2*2 + 3*0
        [[[[3]]]]
    """
    x = centred(codes_x, zero_x)
    w = centred(codes_w, np.asarray(zero_w).reshape(-1, 1, 1, 1))
    check_exact(x, w, terms=w[0].size)
    window = Window(size=(w.shape[2], w.shape[3]), stride=stride, padding=padding, dilation=dilation)
    return correlate(x, w, window, groups=groups).astype(np.int64)


def correlate(x: Real, w: Real, window: Window, *, groups: int = 1) -> Real:
    """Slide ``w`` over ``x`` as :func:`conv2d` does, on real numbers, one kernel tap after another."""
    down, across = window.positions(*x.shape[2:])
    padded = window.pad(x, 0.0)
    batch, channels, outputs = len(x), x.shape[1] // groups, len(w) // groups
    blocks = w.reshape(groups, outputs, channels, *w.shape[2:])
    total = np.zeros((batch, groups, outputs, down * across))
    for row in range(w.shape[2]):
        for column in range(w.shape[3]):
            pixels = window.tap(padded, (down, across), row, column)
            total += blocks[..., row, column] @ pixels.reshape(batch, groups, channels, down * across)
    return total.reshape(batch, len(w), down, across)


def matmul(
    codes_a: npt.NDArray[np.integer],
    codes_b: npt.NDArray[np.integer],
    *,
    zero_a: npt.ArrayLike = 0,
    zero_b: npt.ArrayLike = 0,
) -> Codes:
    """Sum ``(a - zero_a) * (b - zero_b)`` over the last dimension of ``a`` and the last but one of ``b``.

    Args:
        codes_a: ``(..., M, I)``.
        codes_b: ``(..., I, O)``.
        zero_a: Zero point of ``a``; broadcasts over it.
        zero_b: Zero point of ``b``, a number or ``(O,)``.

    Returns:
        ``(..., M, O)`` exact sums in int64.

    Example:
        >>> matmul(np.array([[1, 2]]), np.array([[3], [4]]), zero_a=1).tolist()  # 0*3 + 1*4
        [[4]]
    """
    a, b = centred(codes_a, zero_a), centred(codes_b, zero_b)
    check_exact(a, b, terms=a.shape[-1])
    return (a @ b).astype(np.int64)


def centred(codes: npt.NDArray[np.integer], zero: npt.ArrayLike) -> Real:
    """Subtract the zero point; exact integers, held in float64 for BLAS."""
    return (np.asarray(codes, dtype=np.int64) - np.asarray(zero, dtype=np.int64)).astype(np.float64)


def check_exact(a: Real, b: Real, *, terms: int) -> None:
    """Refuse operands whose sums of ``terms`` products might leave the exact integers of float64."""
    if a.size and b.size and float(np.abs(a).max()) * float(np.abs(b).max()) * terms >= EXACT:
        raise QuantizationError(
            f"sums of {terms} products of codes up to {np.abs(a).max():.0f} and {np.abs(b).max():.0f} can pass 2**53 "
            "and would not be exact; use narrower codes"
        )
