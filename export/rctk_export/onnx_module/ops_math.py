"""Elementwise operators, comparisons and reductions of ONNX as torch functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op
from rctk_export.onnx_module.quantized import straight_through_clip


def always(function: Op) -> Callable[[Node], Op]:
    """Return a builder for an operator without attributes."""
    return lambda _node: function


def together(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    """Bring both operands to one device first: shapes are computed on the host, images may live elsewhere."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.device != b.device:
            a, b = (a.to(b.device), b) if a.device.type == "cpu" else (a, b.to(a.device))
        return function(a, b)

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    pair = together(function)
    return lambda *values: reduce(pair, values)


def _mean(*values: Tensor) -> Tensor:
    total: Tensor = _variadic(torch.add)(*values)
    return total / len(values)


def power(node: Node) -> Op:
    """Raise to a constant exponent without a tensor of exponents, or elementwise."""
    exponent = node.constant(1)
    if exponent is not None and exponent.tensor.numel() == 1 and exponent.tensor.ndim == 0:
        value = exponent.tensor.item()
        return lambda x, _exponent: torch.pow(x, value)
    return together(torch.pow)


def clip(node: Node) -> Op:
    """Clip to attributes (below opset 11) or inputs; straight-through before a quantizer if the settings ask for it.

    On the bounds themselves the gradient is 0, as that of ReLU and ReLU6.
    """
    computed = any(node.has(i) and node.constant(i) is None for i in (1, 2))
    if computed:
        return lambda x, low=None, high=None: torch.clamp(x, min=low, max=high)
    low, high = node.number("min", 1, None), node.number("max", 2, None)
    if low is None and high is None:
        return lambda x, *_bounds: x
    if node.settings.ste == "identity" and node.feeds_quantizer:
        return lambda x, *_bounds: straight_through_clip(x, low, high)
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if low > high:  # ONNX: the upper bound wins
        return lambda x, *_bounds: torch.clamp(x, low, high)
    return lambda x, *_bounds: F.hardtanh(x, low, high) if x.is_floating_point() else torch.clamp(x, low, high)


def leaky_relu(node: Node) -> Op:
    """``x`` where positive, ``alpha * x`` elsewhere."""
    alpha = float(node.get("alpha", 0.01))
    return lambda x: F.leaky_relu(x, alpha)


def p_relu(_node: Node) -> Op:
    """``x`` where not negative, ``slope * x`` elsewhere."""
    return lambda x, slope: torch.where(x >= 0, x, slope * x)


def elu(node: Node) -> Op:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    alpha = float(node.get("alpha", 1.0))
    return lambda x: F.elu(x, alpha)


def celu(node: Node) -> Op:
    """Continuously differentiable Elu."""
    alpha = float(node.get("alpha", 1.0))
    return lambda x: F.celu(x, alpha)


def selu(node: Node) -> Op:
    """``gamma`` times an Elu."""
    alpha = float(node.get("alpha", 1.6732632423543772))
    gamma = float(node.get("gamma", 1.0507009873554805))
    return lambda x: gamma * F.elu(x, alpha)


def thresholded_relu(node: Node) -> Op:
    """``x`` where above ``alpha``, 0 elsewhere."""
    alpha = float(node.get("alpha", 1.0))
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


def hard_sigmoid(node: Node) -> Op:
    """``clip(alpha * x + beta, 0, 1)``."""
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def gelu(node: Node) -> Op:
    """Gaussian error linear unit; the tanh form if the attribute says so."""
    approximate = "tanh" if node.get("approximate", "none") == "tanh" else "none"
    return lambda x: F.gelu(x, approximate=approximate)


def soft_max(function: Callable[..., Tensor]) -> Callable[[Node], Op]:
    """Return the builder of Softmax or LogSoftmax; below opset 13 all axes from ``axis`` on count as one."""

    def build(node: Node) -> Op:
        axis = int(node.get("axis", -1 if node.opset >= 13 else 1))
        if node.opset >= 13:
            return lambda x: function(x, dim=axis)
        return lambda x: function(x.flatten(axis), dim=-1).reshape(x.shape)

    return build


def _product(x: Tensor, dim: list[int], *, keepdim: bool) -> Tensor:
    for axis in sorted((d % x.ndim for d in dim), reverse=True):
        x = x.prod(dim=axis, keepdim=keepdim)
    return x


def _square_sum(x: Tensor, dim: list[int], *, keepdim: bool) -> Tensor:
    return torch.sum(x * x, dim=dim, keepdim=keepdim)


def _norm(order: int) -> Callable[..., Tensor]:
    return lambda x, dim, *, keepdim: torch.linalg.vector_norm(x, ord=order, dim=dim, keepdim=keepdim)


def reduction(function: Callable[..., Tensor]) -> Callable[[Node], Op]:
    """Return the builder of a reduction; axes are an attribute or an input, none means all."""

    def build(node: Node) -> Op:
        axes = node.integers("axes", 1)
        keep, idle = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))

        def run(x: Tensor, given: Tensor | None = None) -> Tensor:
            dim = axes(given)
            if not dim and idle:
                return x
            return function(x, dim=dim or list(range(x.ndim)), keepdim=keep)

        return run

    return build


def where(_node: Node) -> Op:
    """Choose elementwise."""

    def run(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        device = next((v.device for v in (a, b, condition) if v.device.type != "cpu"), a.device)
        return torch.where(condition.to(device), a.to(device), b.to(device))

    return run


def square_root(x: Tensor) -> Tensor:
    """Return the root; its gradient at 0 is 0, so that a deviation of equal values has one, as in PyTorch."""
    if not x.requires_grad:
        return torch.sqrt(x)
    zero = x.detach() == 0
    return torch.where(zero, x.detach(), torch.where(zero, torch.ones_like(x), x).sqrt())


def einsum(node: Node) -> Op:
    """Multiply and sum as the equation says."""
    equation = str(node.get("equation", ""))
    return lambda *values: torch.einsum(equation, *values)


PLAIN: dict[str, Op] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "HardSwish": F.hardswish,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Mish": F.mish,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": square_root,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Reciprocal": torch.reciprocal,
    "Not": torch.logical_not,
    "Add": together(torch.add),
    "Sub": together(torch.sub),
    "Mul": together(torch.mul),
    "Div": together(_divide),
    "Min": _variadic(torch.minimum),
    "Max": _variadic(torch.maximum),
    "Sum": _variadic(torch.add),
    "Mean": _mean,
    "Equal": together(torch.eq),
    "Greater": together(torch.gt),
    "GreaterOrEqual": together(torch.ge),
    "Less": together(torch.lt),
    "LessOrEqual": together(torch.le),
    "And": together(torch.logical_and),
    "Or": together(torch.logical_or),
    "Xor": together(torch.logical_xor),
}
"""Operators without attributes."""

MATH: dict[str, Callable[[Node], Op]] = {
    **{name: always(function) for name, function in PLAIN.items()},
    "Pow": power,
    "Clip": clip,
    "LeakyRelu": leaky_relu,
    "PRelu": p_relu,
    "Elu": elu,
    "Celu": celu,
    "Selu": selu,
    "ThresholdedRelu": thresholded_relu,
    "HardSigmoid": hard_sigmoid,
    "Gelu": gelu,
    "Softmax": soft_max(torch.softmax),
    "LogSoftmax": soft_max(torch.log_softmax),
    "ReduceMean": reduction(torch.mean),
    "ReduceSum": reduction(torch.sum),
    "ReduceMax": reduction(torch.amax),
    "ReduceMin": reduction(torch.amin),
    "ReduceProd": reduction(_product),
    "ReduceSumSquare": reduction(_square_sum),
    "ReduceL1": reduction(_norm(1)),
    "ReduceL2": reduction(_norm(2)),
    "ReduceLogSumExp": reduction(torch.logsumexp),
    "Where": where,
    "Einsum": einsum,
}
