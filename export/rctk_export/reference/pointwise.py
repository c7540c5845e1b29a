"""Element by element arithmetic, activations and normalisations, in float64 (integers stay integers)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from rctk_export.reference.shapes import pointwise
from rctk_export.reference.values import Array, Node, Operator, Value, plain, real
from rctk_kernels.errors import UnsupportedOperatorError
from rctk_kernels.qparams import Real

erf: Callable[[Real], Real] = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Real) -> Real:
    """Logistic function without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def gelu(x: Real, *, approximate: str) -> Real:
    """GELU, exact or with the tanh formula."""
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def celu(x: Real, *, alpha: float) -> Real:
    """CELU."""
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def elu(x: Real, *, alpha: float) -> Real:
    """ELU."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def hard_sigmoid(x: Real, *, alpha: float, beta: float) -> Real:
    """Piecewise linear sigmoid."""
    return np.clip(alpha * x + beta, 0, 1)


def unary(function: Callable[..., Real], **defaults: float | str) -> Operator:
    """Make an activation of ``function``; ``defaults`` are its ONNX attributes."""

    def run(node: Node, x: Value) -> Value:
        settings = {key: node.get(key, default) for key, default in defaults.items()}
        return np.asarray(function(plain(x), **settings))

    return run


def divide(a: Array, b: Array) -> Array:
    """Divide; integers towards zero."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return np.trunc(a / b).astype(a.dtype)
    return np.asarray(a / b)


def folded(function: Callable[[Array, Array], Array]) -> Operator:
    """Make an operator of any number of inputs out of a function of two."""
    return pointwise(lambda *arrays: functools.reduce(function, arrays))


def clip(_: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Clip; a bound left out does not bind, and where low > high the result is high."""
    array = plain(x)
    array = array if low is None else np.maximum(array, plain(low))
    return array if high is None else np.minimum(array, plain(high))


def mod(node: Node, a: Value, b: Value) -> Value:
    """Mod with the sign of the divisor, or of the dividend with ``fmod``."""
    return np.asarray((np.fmod if node.get("fmod", 0) else np.mod)(plain(a), plain(b)))


def softmax(node: Node, x: Value) -> Value:
    """Softmax along one axis."""
    return np.asarray(np.exp(np.asarray(log_softmax(node, x))))


def log_softmax(node: Node, x: Value) -> Value:
    """LogSoftmax along one axis."""
    axis, array = node.get("axis", -1), real(x)
    shifted = array - array.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def batch_normalization(node: Node, x: Value, *statistics: Value) -> Value:
    """BatchNormalization with stored mean and variance."""
    if node.get("training_mode", 0):
        raise UnsupportedOperatorError(
            f"BatchNormalization {node.name!r} is in training mode; export the model in eval mode"
        )
    array = real(x)
    scale, bias, mean, var = (real(value).reshape(-1, *[1] * (array.ndim - 2)) for value in statistics)
    return np.asarray((array - mean) / np.sqrt(var + node.get("epsilon", 1e-5)) * scale + bias)


def standardized(x: Real, axes: tuple[int, ...], epsilon: float) -> Real:
    """Shift and scale to mean 0 and variance 1 over ``axes``."""
    centred = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon))


def layer_normalization(node: Node, x: Value, scale: Value, bias: Value | None = None) -> Value:
    """LayerNormalization over the axes from ``axis`` on."""
    array = real(x)
    axes = tuple(range(node.get("axis", -1) % array.ndim, array.ndim))
    y = standardized(array, axes, node.get("epsilon", 1e-5)) * real(scale)
    return y if bias is None else y + real(bias)


def instance_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """InstanceNormalization: every channel of every image by itself."""
    array = real(x)
    per_channel = (-1, *[1] * (array.ndim - 2))
    y = standardized(array, tuple(range(2, array.ndim)), node.get("epsilon", 1e-5))
    return np.asarray(y * real(scale).reshape(per_channel) + real(bias).reshape(per_channel))


def group_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """GroupNormalization as of opset 21; before, scale and bias belonged to groups."""
    array, groups = real(x), node.attributes["num_groups"]
    blocks = array.reshape(len(array), groups, -1)
    y = standardized(blocks, (2,), node.get("epsilon", 1e-5)).reshape(array.shape)
    repeat = array.shape[1] // real(scale).size
    gain, shift = (np.repeat(real(v), repeat).reshape(-1, *[1] * (array.ndim - 2)) for v in (scale, bias))
    return np.asarray(y * gain + shift)


OPERATORS: dict[str, Operator] = {
    "Abs": pointwise(np.abs),
    "Add": pointwise(np.add),
    "BatchNormalization": batch_normalization,
    "Ceil": pointwise(np.ceil),
    "Celu": unary(celu, alpha=1.0),
    "Clip": clip,
    "Cos": pointwise(np.cos),
    "Div": pointwise(divide),
    "Elu": unary(elu, alpha=1.0),
    "Erf": unary(erf),
    "Exp": pointwise(np.exp),
    "Floor": pointwise(np.floor),
    "Gelu": unary(gelu, approximate="none"),
    "GroupNormalization": group_normalization,
    "HardSigmoid": unary(hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": unary(lambda x: x * hard_sigmoid(x, alpha=1 / 6, beta=0.5)),
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": unary(lambda x, alpha: np.where(x < 0, alpha * x, x), alpha=0.01),
    "Log": pointwise(np.log),
    "LogSoftmax": log_softmax,
    "Max": folded(np.maximum),
    "Min": folded(np.minimum),
    "Mish": unary(lambda x: x * np.tanh(np.logaddexp(0.0, x))),
    "Mod": mod,
    "Mul": pointwise(np.multiply),
    "Neg": pointwise(np.negative),
    "PRelu": pointwise(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Pow": pointwise(lambda x, power: np.power(x, power).astype(x.dtype)),
    "Reciprocal": pointwise(np.reciprocal),
    "Relu": pointwise(lambda x: np.maximum(x, 0)),
    "Round": pointwise(np.rint),
    "Selu": unary(
        lambda x, alpha, gamma: gamma * elu(x, alpha=alpha), alpha=1.6732632423543772, gamma=1.0507009873554805
    ),
    "Sigmoid": unary(sigmoid),
    "Sign": pointwise(np.sign),
    "Sin": pointwise(np.sin),
    "Softmax": softmax,
    "Softplus": unary(lambda x: np.logaddexp(0.0, x)),
    "Softsign": unary(lambda x: x / (1 + np.abs(x))),
    "Sqrt": pointwise(np.sqrt),
    "Sub": pointwise(np.subtract),
    "Sum": folded(np.add),
    "Tanh": pointwise(np.tanh),
    "ThresholdedRelu": unary(lambda x, alpha: np.where(x > alpha, x, 0.0), alpha=1.0),
}
