"""The window of a Conv or pooling node, read from its attributes."""

from __future__ import annotations

from collections.abc import Sequence

from rctk_export.reference.values import Node
from rctk_kernels.errors import UnsupportedOperatorError
from rctk_kernels.windows import Window


def window_of(node: Node, shape: Sequence[int], size: Sequence[int]) -> Window:
    """Return the window that ``node`` slides over a tensor of ``shape``.

    Args:
        node: Conv, MaxPool or AveragePool.
        shape: ``(N, C, H, W)``; other ranks are refused.
        size: Taps, (height, width).
    """
    if len(shape) != 4 or len(size) != 2:
        raise UnsupportedOperatorError(f"{node.op} {node.name!r} works on shape {tuple(shape)}; rctk runs images only")
    pair = (int(size[0]), int(size[1]))
    stride, dilation = _pair(node.get("strides", (1, 1))), _pair(node.get("dilations", (1, 1)))
    auto = node.get("auto_pad", "NOTSET")
    top, left, bottom, right = (0, 0, 0, 0) if auto == "VALID" else node.get("pads", (0, 0, 0, 0))
    if auto.startswith("SAME"):
        rows = _same(shape[2], (pair[0] - 1) * dilation[0] + 1, stride[0], upper=auto == "SAME_UPPER")
        columns = _same(shape[3], (pair[1] - 1) * dilation[1] + 1, stride[1], upper=auto == "SAME_UPPER")
        (top, bottom), (left, right) = rows, columns
    padding = (int(top), int(left), int(bottom), int(right))
    return Window(size=pair, stride=stride, padding=padding, dilation=dilation, ceil=bool(node.get("ceil_mode", 0)))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _same(length: int, reach: int, stride: int, *, upper: bool) -> tuple[int, int]:
    """Split the padding that keeps ``ceil(length / stride)`` positions; the odd pixel goes last for ``upper``."""
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    half = total // 2
    return (half, total - half) if upper else (total - half, half)
