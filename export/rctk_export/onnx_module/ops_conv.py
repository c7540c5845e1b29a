"""Convolutions, matrix products, pooling and normalisation of ONNX as torch functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op

CONV = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVERAGE_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Order pads as ``F.pad`` wants them: last axis first."""
    return [pad for pair in zip(reversed(begin), reversed(end), strict=True) for pad in pair]


@dataclass(frozen=True)
class Window:
    """How a window moves over the spatial axes; per axis, as ONNX states it."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    begin: list[int]
    end: list[int]
    auto: str
    ceil: bool

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int]) -> Window:
        """Read the attributes of a convolution or pooling node with defaults filled in."""
        rank = len(kernel)
        pads = list(node.get("pads", [0] * (2 * rank)))
        auto = node.get("auto_pad", "NOTSET")
        if auto == "VALID":
            pads, auto = [0] * (2 * rank), "NOTSET"
        return cls(
            kernel=list(kernel),
            stride=list(node.get("strides", [1] * rank)),
            dilation=list(node.get("dilations", [1] * rank)),
            begin=pads[:rank],
            end=pads[rank:],
            auto=auto,
            ceil=bool(node.get("ceil_mode", 0)),
        )

    @property
    def symmetric(self) -> bool:
        """Whether torch can pad by itself."""
        return self.auto == "NOTSET" and self.begin == self.end and not self.ceil

    def pads(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return begin and end pads for an input of ``sizes``; a window that starts after the input is dropped."""
        begin, end = [], []
        for i, size in enumerate(sizes):
            reach, stride = self.dilation[i] * (self.kernel[i] - 1) + 1, self.stride[i]
            if self.auto == "NOTSET":
                first, last = self.begin[i], self.end[i]
                if self.ceil:
                    count = math.ceil((size + first + last - reach) / stride) + 1
                    count -= (count - 1) * stride >= size + first
                    last = max(last, (count - 1) * stride + reach - size - first)
            else:
                total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
                first = total // 2 if self.auto == "SAME_UPPER" else total - total // 2
                last = total - first
            begin.append(first)
            end.append(last)
        return begin, end


def _kernel(node: Node) -> list[int]:
    kernel = node.get("kernel_shape", None)
    if kernel is None:
        raise node.refuse("its kernel_shape is not stated")
    if not 1 <= len(kernel) <= 3:
        raise node.refuse(f"{len(kernel)} spatial axes are not supported")
    return list(kernel)


def conv(node: Node) -> Op:
    """Convolution over 1 to 3 spatial axes."""
    window, groups = Window.of(node, _kernel(node)), int(node.get("group", 1))
    function, stride, dilation = CONV[len(window.kernel) - 1], window.stride, window.dilation
    if window.symmetric:
        padding = window.begin
        return lambda x, w, b=None: function(x, w, b, stride, padding, dilation, groups)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        padded = F.pad(x, torch_pads(*window.pads(x.shape[2:])))
        return function(padded, w, b, stride, 0, dilation, groups)

    return run


def conv_transpose(node: Node) -> Op:
    """Transposed convolution: the full one, cut to the pads."""
    window, groups = Window.of(node, _kernel(node)), int(node.get("group", 1))
    rank = len(window.kernel)
    function, extra = TRANSPOSED[rank - 1], list(node.get("output_padding", [0] * rank))
    wanted = node.get("output_shape", None)

    def cut(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        if wanted is None and window.auto == "NOTSET":
            return window.begin, window.end
        begin, end = [], []
        for i, size in enumerate(sizes):
            stride, reach = window.stride[i], window.dilation[i] * (window.kernel[i] - 1) + 1
            goal = size * stride if wanted is None else wanted[-rank:][i]
            total = max(0, stride * (size - 1) + extra[i] + reach - goal)
            first = total // 2 if window.auto == "SAME_UPPER" else total - total // 2
            begin.append(first)
            end.append(total - first)
        return begin, end

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        full = function(x, w, None, window.stride, 0, 0, groups, window.dilation)
        begin, end = cut(x.shape[2:])
        full = F.pad(full, torch_pads([-p for p in begin], [e - p for e, p in zip(extra, end, strict=True)]))
        return full if b is None else full + b.reshape(-1, *[1] * rank)

    return run


def max_pool(node: Node) -> Op:
    """Largest value in each window."""
    window = Window.of(node, _kernel(node))
    function = MAX_POOL[len(window.kernel) - 1]
    if window.symmetric and all(2 * p <= k for p, k in zip(window.begin, window.kernel, strict=True)):
        return lambda x: function(x, window.kernel, window.stride, window.begin, window.dilation)

    def run(x: Tensor) -> Tensor:
        padded = F.pad(x, torch_pads(*window.pads(x.shape[2:])), value=-math.inf)
        return function(padded, window.kernel, window.stride, 0, window.dilation)

    return run


def average_pool(node: Node) -> Op:
    """Mean of each window."""
    window = Window.of(node, _kernel(node))
    plain = window.symmetric and all(d == 1 for d in window.dilation)
    if plain and all(2 * p <= k for p, k in zip(window.begin, window.kernel, strict=True)):
        function, padded = AVERAGE_POOL[len(window.kernel) - 1], bool(node.get("count_include_pad", 0))
        return lambda x: function(x, window.kernel, window.stride, window.begin, False, padded)
    sums = window_sums(node)

    def run(x: Tensor) -> Tensor:
        total, count = sums(x)
        return total / count

    return run


def window_sums(node: Node) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function that gives the sum of each window and the number of values that count in it."""
    window = Window.of(node, _kernel(node))
    function, include = CONV[len(window.kernel) - 1], bool(node.get("count_include_pad", 0))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        begin, end = window.pads(x.shape[2:])
        ones = torch.ones_like(x[:1, :1])
        if include:  # what ceil_mode adds beyond the stated pads never counts
            stated = (window.begin, window.end) if window.auto == "NOTSET" else (begin, end)
            ones = F.pad(ones, torch_pads(*stated), value=1.0)
            rest = [e - s for e, s in zip(end, stated[1], strict=True)]
            ones = F.pad(ones, torch_pads([0] * len(rest), rest))
        else:
            ones = F.pad(ones, torch_pads(begin, end))
        weight = x.new_ones((1, 1, *window.kernel))
        padded = F.pad(x, torch_pads(begin, end))
        planes = padded.reshape(-1, 1, *padded.shape[2:])
        total = function(planes, weight, None, window.stride, 0, window.dilation)
        count = function(ones, weight, None, window.stride, 0, window.dilation)
        return total.reshape(*x.shape[:2], *total.shape[2:]), count

    return run


def global_average_pool(_node: Node) -> Op:
    """Mean over all spatial axes, which are kept."""
    return lambda x: x.mean(dim=list(range(2, x.ndim)), keepdim=True)


def global_max_pool(_node: Node) -> Op:
    """Largest value over all spatial axes, which are kept."""
    return lambda x: x.amax(dim=list(range(2, x.ndim)), keepdim=True)


def gemm_product(node: Node) -> Callable[[Tensor, Tensor], Tensor]:
    """``A' @ B'`` of a Gemm, without alpha, beta and C."""
    flip_a, flip_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    return lambda a, b: (a.t() if flip_a else a) @ (b.t() if flip_b else b)


def gemm(node: Node) -> Op:
    """``alpha * A' @ B' + beta * C``."""
    alpha, beta, product = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0)), gemm_product(node)
    flip_a, flip_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if alpha == 1 and beta == 1 and not flip_a and (c is None or c.ndim == 1):
            return F.linear(a, b if flip_b else b.t(), c)
        result = product(a, b) if alpha == 1 else alpha * product(a, b)
        return result if c is None else result + (c if beta == 1 else beta * c)

    return run


def batch_norm(node: Node) -> Op:
    """Normalise with stored statistics."""
    if node.get("training_mode", 0) or any(node.outputs[1:]):
        raise node.refuse("it is in training mode")
    eps = float(node.get("epsilon", 1e-5))
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, training=False, eps=eps)


def layer_norm(node: Node) -> Op:
    """Normalise over the axes from ``axis`` on."""
    axis, eps = int(node.get("axis", -1)), float(node.get("epsilon", 1e-5))

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        return F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), eps)

    return run


def instance_norm(node: Node) -> Op:
    """Normalise each channel of each image."""
    eps = float(node.get("epsilon", 1e-5))
    return lambda x, scale, bias: F.group_norm(x, x.shape[1], scale, bias, eps)


def group_norm(node: Node) -> Op:
    """Normalise groups of channels; below opset 21 scale and bias are per group."""
    groups, eps = int(node.attributes["num_groups"]), float(node.get("epsilon", 1e-5))

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if node.opset < 21:
            scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
        return F.group_norm(x, groups, scale, bias, eps)

    return run


def local_response_norm(node: Node) -> Op:
    """Divide by a power of the mean square of neighbouring channels."""
    size, alpha = int(node.attributes["size"]), float(node.get("alpha", 1e-4))
    beta, bias = float(node.get("beta", 0.75)), float(node.get("bias", 1.0))

    def run(x: Tensor) -> Tensor:
        squares = F.pad(x * x, [0, 0] * (x.ndim - 2) + [(size - 1) // 2, size // 2])
        near = squares.unfold(1, size, 1).sum(dim=-1)
        return x / (bias + alpha / size * near) ** beta

    return run


LAYERS: dict[str, Callable[[Node], Op]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "Gemm": gemm,
    "MatMul": lambda _node: torch.matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LRN": local_response_norm,
}
