"""Fake quantization as autograd functions with few passes over memory.

``v_hat = s * round(clip(v / s, low, high))``, ties to even. What differs between methods is the gradient. The two pairs
of plain functions, :func:`forward_pass` and :func:`backward_pass`, touch the large tensors: a native kernel replaces
these two and nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


class Passed(NamedTuple):
    """What the forward pass leaves: quantized values, and ``clip(v / s, low, high)`` before rounding."""

    values: Tensor
    inside: Tensor


class Sums(NamedTuple):
    """What the backward pass gives, for an incoming gradient ``g`` and quantized values ``q * s``.

    Attributes:
        grad: Gradient of ``v``: ``g`` where ``low < v / s < high``, else 0.
        codes: Sum of ``g * q``, in the shape of the scale.
        inside: Sum of ``grad * v / s``, likewise.
    """

    grad: Tensor
    codes: Tensor
    inside: Tensor


def forward_pass(v: Tensor, scale: Tensor, low: float, high: float) -> Passed:
    """Quantize ``v`` with a scale that broadcasts: one value, or one per entry of the first axis."""
    inside = (v / scale).clamp_(low, high)
    return Passed(inside.round().mul_(scale), inside)


def backward_pass(grad: Tensor, passed: Passed, scale: Tensor, low: float, high: float) -> Sums:
    """Return every sum that a learned grid needs; products are summed without being stored."""
    through: Tensor = torch.ops.aten.hardtanh_backward(grad, passed.inside, low, high)
    codes = _products(grad, passed.values, scale) / scale
    return Sums(through, codes, _products(through, passed.inside, scale))


def _products(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Return the sum of ``a * b`` in the shape of ``like``."""
    if like.numel() > 1:
        rows = len(a)
        return torch.bmm(a.reshape(rows, 1, -1), b.reshape(rows, -1, 1)).reshape(like.shape)
    if a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1)).reshape(like.shape)
    if a.ndim == 4:
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)  # channels last lie in this order
    return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(like.shape)


class _Learned(torch.autograd.Function):
    """LSQ: the scale learns from rounding inside the range and from clipping outside."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, scale: Tensor, low: float, high: float, gain: float) -> Tensor:
        passed = forward_pass(v, scale, low, high)
        ctx.save_for_backward(*passed, scale)
        ctx.settings = (low, high, gain)
        return passed.values

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None, None]:
        values, inside, scale = ctx.saved_tensors
        low, high, gain = ctx.settings
        if not ctx.needs_input_grad[1]:
            through = torch.ops.aten.hardtanh_backward(grads[0], inside, low, high)
            return through, None, None, None, None  # type: ignore[return-value]
        sums = backward_pass(grads[0], Passed(values, inside), scale, low, high)
        return sums.grad, gain * (sums.codes - sums.inside), None, None, None


class _Clipped(torch.autograd.Function):
    """PACT: the clipping level learns from what is clipped, and from nothing else."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, level: Tensor, low: float, high: float) -> Tensor:
        scale = level / high
        passed = forward_pass(v, scale, low, high)
        ctx.save_for_backward(*passed, scale)
        ctx.settings = (low, high)
        return passed.values

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        values, inside, scale = ctx.saved_tensors
        low, high = ctx.settings
        through = torch.ops.aten.hardtanh_backward(grads[0], inside, low, high)
        outside = _products(grads[0] - through, values, scale) / scale  # codes there are low or high
        return through, outside / high, None, None


class _Offset(torch.autograd.Function):
    """LSQ+: scale and offset learn; the offset is a whole number of steps, so that real 0 is a code."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, scale: Tensor, offset: Tensor, last: int, gain: float) -> Tensor:
        zero = float(zero_point(scale, offset, last))
        passed = forward_pass(v, scale, -zero, last - zero)
        ctx.save_for_backward(*passed, scale)
        ctx.settings = (zero, last, gain)
        return passed.values

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, inside, scale = ctx.saved_tensors
        zero, last, gain = ctx.settings
        sums = backward_pass(grads[0], Passed(values, inside), scale, -zero, last - zero)
        outside = (grads[0].sum() - sums.grad.sum()).reshape(scale.shape)
        return sums.grad, gain * (sums.codes - sums.inside + zero * outside), gain * outside, None, None


class _Straight(torch.autograd.Function):
    """A given scale; the gradient passes the rounding."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, scale: Tensor, low: float, high: float, grad: str) -> Tensor:
        ratio = v / scale
        ctx.save_for_backward(ratio)
        ctx.settings = (low, high, grad)
        return ratio.clamp(low, high).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        (ratio,) = ctx.saved_tensors
        low, high, how = ctx.settings
        grad: Tensor = grads[0]
        if how != "identity":
            grad = torch.ops.aten.hardtanh_backward(grad, ratio, low - 0.5, high + 0.5)
        if how == "scaled":
            grad = grad * (1 + SCALING * grad.sign() * (ratio - ratio.clamp(low, high).round()))
        return grad, None, None, None, None


SCALING = 1e-3
"""Of the ``scaled`` gradient."""


class _Sign(torch.autograd.Function):
    """``+1`` for ``v >= 0``, else ``-1``; the gradient passes where ``|v| <= reach``."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, reach: float) -> Tensor:
        ctx.save_for_backward(v.abs() <= reach)
        return torch.where(v >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (near,) = ctx.saved_tensors
        return grads[0] * near, None


def learned_steps(v: Tensor, scale: Tensor, low: float, high: float, gain: float) -> Tensor:
    """Fake-quantize with a learned scale, whose gradient is multiplied by ``gain``.

    Example:
        >>> s = torch.tensor(0.5, requires_grad=True)
        >>> learned_steps(torch.tensor([0.7, 9.0]), s, 0, 3, 1.0).sum().backward()
        >>> s.grad  # round(1.4) - 1.4, and 3 where it was clipped
        tensor(2.6000)
    """
    return cast("Tensor", _Learned.apply(v, scale, low, high, gain))


def clipped_steps(v: Tensor, level: Tensor, low: float, high: float) -> Tensor:
    """Fake-quantize with ``high`` steps up to a learned clipping level."""
    return cast("Tensor", _Clipped.apply(v, level, low, high))


def offset_steps(v: Tensor, scale: Tensor, offset: Tensor, last: int, gain: float) -> Tensor:
    """Fake-quantize with codes ``0 .. last`` that begin at a learned offset, which is rounded to a whole step."""
    return cast("Tensor", _Offset.apply(v, scale, offset, last, gain))


def zero_point(scale: Tensor, offset: Tensor, last: int) -> Tensor:
    """Return the code of real 0 in a grid that begins at ``offset``."""
    return (-offset.detach() / scale.detach()).round().clamp(0, last)


def straight_steps(v: Tensor, scale: Tensor, low: float, high: float, grad: str) -> Tensor:
    """Fake-quantize with a given scale; the gradient of ``v`` is ``identity``, ``clipped`` or ``scaled``."""
    return cast("Tensor", _Straight.apply(v, scale, low, high, grad))


def sign(v: Tensor, reach: float) -> Tensor:
    """Return +1 or -1; 0 has the sign +1.

    Example:
        >>> sign(torch.tensor([-0.5, 0.0, 3.0]), 1.0)
        tensor([-1.,  1.,  1.])
    """
    return cast("Tensor", _Sign.apply(v, reach))
