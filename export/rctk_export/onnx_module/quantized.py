"""QuantizeLinear and DequantizeLinear with straight-through gradients.

Codes are integer-valued floats here, so that gradients can pass through them. The estimator is
``clipped`` (the gradient is 1 where the code lies inside its range, 0 outside) or ``identity`` (1 everywhere):
Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, https://arxiv.org/abs/1308.3432.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from onnx import TensorProto
from torch import Tensor

from rctk_export.onnx_module.codes import Codes, along
from rctk_export.onnx_module.node import Node, Op
from rctk_kernels.errors import GraphError

RANGES: dict[int, tuple[int, int]] = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}


class Format(NamedTuple):
    """Where codes lie once the zero point is subtracted: numbers, or tensors if it differs between channels."""

    low: Any
    high: Any
    axis: int | None


def quantizer_axis(node: Node) -> int | None:
    """Return the channel axis of the scale, None for one scale per tensor; blocks are refused."""
    if int(node.get("block_size", 0)):
        raise node.refuse(f"block_size {node.get('block_size', 0)} (blocked quantization) is not supported")
    scale = node.constant(1)
    if scale is None:
        return None  # computed in the graph, as DynamicQuantizeLinear does: one per tensor
    if not bool(torch.isfinite(scale.tensor).all()) or bool((scale.tensor <= 0).any()):
        raise GraphError(
            f"{node.where}: scale {node.inputs[1]!r} must be positive and finite; quantize the model again"
        )
    if scale.tensor.ndim > 1:
        raise node.refuse(f"a scale with {scale.tensor.ndim} axes (blocked quantization) is not supported")
    return None if scale.tensor.numel() == 1 else int(node.get("axis", 1))


def code_range(node: Node) -> tuple[int, int]:
    """Return the lowest and highest code of a QuantizeLinear: from its zero point, or its output_dtype, or uint8."""
    zero = node.constant(2)
    if node.has(2) and zero is None:
        raise node.refuse("its zero point must be a constant")
    kind = int(node.get("output_dtype", 0)) or (zero.kind if zero else TensorProto.UINT8)
    if kind not in RANGES:
        raise node.refuse(f"codes of type {TensorProto.DataType.Name(kind)} are not supported")
    return RANGES[kind]


def code_format(node: Node) -> Format:
    """Return the range of ``round(x / scale)`` that the codes of a QuantizeLinear can hold."""
    axis, (low, high), zero = quantizer_axis(node), code_range(node), node.constant(2)
    values = zero.tensor.double() if zero else torch.zeros(1, dtype=torch.float64)
    first = float(values.reshape(-1)[0]) if values.numel() else 0.0
    if bool((values == first).all()):
        return Format(low - first, high - first, axis)
    dtype = node.settings.dtype
    return Format((low - values).to(dtype), (high - values).to(dtype), axis)


class _Round(torch.autograd.Function):
    """``clip(round(x / scale), low, high)``; the gradient passes straight through the rounding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Any, high: Any, clipped: bool) -> Tensor:
        rounded = (x / scale).round_()
        ctx.bounds = (low, high)
        if not clipped or not ctx.needs_input_grad[0]:
            ctx.save_for_backward(scale)
            return rounded.clamp_(low, high)
        ctx.save_for_backward(scale, rounded)
        return rounded.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        (scale, *saved), (low, high) = ctx.saved_tensors, ctx.bounds
        grad = grads[0] / scale
        if saved and isinstance(low, Tensor):
            grad = torch.where((saved[0] >= low) & (saved[0] <= high), grad, 0.0)
        elif saved:  # one fused pass, where a mask of bools would take 25 times as long
            grad = torch.ops.aten.hardtanh_backward(grad, saved[0], low - 0.5, high + 0.5)
        return grad, None, None, None, None


class _Clip(torch.autograd.Function):
    """Clip; the gradient passes as if nothing happened."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, low: float | None, high: float | None) -> Tensor:
        return torch.clamp(x, low, high)

    @staticmethod
    def backward(_ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        return grads[0], None, None


def straight_through_clip(x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Clip ``x``; its gradient is 1 everywhere.

    Example:
        >>> x = torch.tensor([0.5, 7.0], requires_grad=True)
        >>> straight_through_clip(x, 0.0, 6.0).sum().backward()
        >>> x.grad
        tensor([1., 1.])
    """
    return cast("Tensor", _Clip.apply(x, low, high))


def to_pixels(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the 8-bit pixels nearest to images in [0, 1]; the gradient is 255 inside that range.

    Example:
        >>> to_pixels(torch.tensor([0.0, 0.5, 1.2]), torch.float32)
        tensor([  0., 128., 255.])
    """
    if not images.is_floating_point():
        return images.to(dtype)
    scaled = images.float().clamp(0, 1) * 255
    return cast("Tensor", _Round.apply(scaled, scaled.new_ones(()), 0, 255, True)).to(dtype)


def _rounding(node: Node) -> Callable[[Tensor, Tensor], Tensor]:
    low, high, axis = code_format(node)
    clipped = node.settings.ste == "clipped"

    def run(x: Tensor, scale: Tensor) -> Tensor:
        if isinstance(low, Tensor):
            bounds = [along(bound.to(x.device), x.ndim, axis) for bound in (low, high)]
        else:
            bounds = [low, high]
        return cast("Tensor", _Round.apply(x, along(scale, x.ndim, axis), *bounds, clipped))

    return run


def quantize(node: Node) -> Op:
    """``clip(round_half_even(x / scale) + zero)`` as floats."""
    rounded, axis = _rounding(node), quantizer_axis(node)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        codes = rounded(x, scale)
        return codes if zero is None else codes + along(zero, x.ndim, axis)

    return run


def dequantize(node: Node) -> Op:
    """Codes that know their value; exact mode keeps them as they are, fast mode subtracts the zero point at once."""
    axis, fixed = quantizer_axis(node), node.constant(0) is not None
    dtype, exact = node.settings.dtype, node.settings.exact

    def run(codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Codes:
        given = Codes(codes.to(dtype), scale, None if zero is None else zero.to(dtype), axis, fixed)
        return given if exact else Codes(given.centred(), scale, None, axis, fixed)

    return run


def fake_quantize(node: Node) -> Op:
    """QuantizeLinear and the DequantizeLinear after it in one pass: codes without their zero point."""
    rounded, axis = _rounding(node), quantizer_axis(node)
    return lambda x, scale, _zero=None: Codes(rounded(x, scale), scale, None, axis)


def dynamic_quantize(node: Node) -> Op:
    """Codes, scale and zero point of uint8 whose range is that of the batch and 0; one scale for the whole batch."""
    if node.settings.exact:
        raise node.refuse("scales computed at run time have no exact mode; use the fast one")
    clipped = node.settings.ste == "clipped"

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lowest, highest = torch.aminmax(x.detach())
        low, high = lowest.clamp(max=0), highest.clamp(min=0)
        scale = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).tiny)
        zero = torch.clamp(torch.round(-low / scale), 0, 255)
        codes = cast("Tensor", _Round.apply(x, scale, -zero, 255 - zero, clipped)) + zero
        return codes, scale, zero

    return run


QUANTIZED: dict[str, Callable[[Node], Op]] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "FakeQuantize": fake_quantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
