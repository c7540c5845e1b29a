"""What a quantizer is: a module in the graph that replaces a tensor by values of an integer grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rctk.qat.kernel import learned_steps, straight_steps
from rctk_export.quantize.formats import Steps
from rctk_export.quantize.grid import MIN_SCALE


def along_rows(scale: Tensor, ndim: int) -> Tensor:
    """Return scales ``(O,)`` or ``()`` so that they broadcast over a weight ``(O, ...)`` of ``ndim`` axes."""
    return scale.reshape(-1, *[1] * (ndim - 1)) if scale.ndim else scale


def held(scale: Tensor) -> Tensor:
    """Return a learned scale, raised to the least that engines take; the gradient passes."""
    return scale + (scale.detach().clamp_min(MIN_SCALE) - scale.detach())


def row_mean(values: Tensor, *, per_channel: bool) -> Tensor:
    """Return the mean over each row, ``(O,)``, or over everything, ``()``."""
    return values.flatten(1).mean(dim=1) if per_channel else values.mean()


def weight_limits(bits: int) -> tuple[int, int]:
    """Return the lowest and highest weight code; 8 bits leave -128 out, so that codes can change their sign.

    Example:
        >>> weight_limits(2), weight_limits(8)
        ((-2, 1), (-127, 127))
    """
    high = int(2 ** (bits - 1) - 1)
    return (-high if bits == 8 else -high - 1), high


class _Moved(torch.autograd.Function):
    """``multiple * start``; the gradient of the multiple is that of the product over ``start``, and at most 1."""

    @staticmethod
    def forward(ctx: Any, multiple: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(start)
        return multiple * start

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (start,) = ctx.saved_tensors
        return (grads[0] / start).clamp(-1, 1), None


def moved(multiple: Tensor, start: Tensor) -> Tensor:
    """Return ``multiple * start`` such that SGD moves the product as if it were the parameter itself.

    A learning rate moves it by that share of ``start`` at most in one step (momentum adds up): with the product as the
    parameter, scales of 8 bits, which are near 0.01, changed their sign within ten steps at a learning rate of 0.02;
    with the plain gradient of the multiple, which is smaller by ``start`` squared, scales of weights stayed where they
    were.
    """
    return cast("Tensor", _Moved.apply(multiple, start))


class LearnedScale(nn.Module):
    """A scale as its first value and a learned relative change, between a sixteenth and sixteen times that value.

    Weight decay pulls it towards its first value, not towards zero.
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone().clamp_min(MIN_SCALE))
        self.change = nn.Parameter(torch.zeros_like(self.start))

    def forward(self) -> Tensor:
        """Return the scale."""
        change = self.change + (self.change.detach().clamp(1 / 16 - 1, 15) - self.change.detach())
        return held(moved(1 + change, self.start))


class Quantizer(nn.Module, ABC):
    """Values in, values of a grid out; ``off`` lets values through as they are."""

    off = False

    def forward(self, values: Tensor) -> Tensor:
        """Quantize, unless switched off."""
        return values if self.off else self.quantize(values)

    @abstractmethod
    def quantize(self, values: Tensor) -> Tensor:
        """Return values of the grid, with the gradient of the method."""

    def after_epoch(self, done: float) -> None:
        """Take note that a share ``done`` of the training lies behind; most methods do not care."""


class WeightQuantizer(Quantizer):
    """Quantizes ``(O, ...)``; codes fit into int8 in both signs."""

    @abstractmethod
    def scale(self, weight: Tensor) -> Tensor:
        """Return the value of one step, ``(O,)`` or ``()``."""

    def codes(self, weight: Tensor) -> Tensor:
        """Return the integers that the quantized values stand for; the same as trained, whatever the method."""
        with torch.no_grad():
            return (self.quantize(weight) / along_rows(self.scale(weight), weight.ndim)).round()


class ActivationQuantizer(Quantizer):
    """Quantizes activations; one grid per tensor."""

    @abstractmethod
    def steps(self) -> Steps:
        """Return the grid as it is now."""

    def unit(self) -> Tensor:
        """Return the value of one step, ``()``."""
        return torch.tensor(self.steps().scale, dtype=torch.float32)


class LearnedWeight(WeightQuantizer):
    """A learned scale; see :mod:`rctk.qat.lsq`. One bit has the codes -1 and 1."""

    def __init__(self, start: Tensor, bits: int, count: int) -> None:
        super().__init__()
        self.low, self.high = weight_limits(bits) if bits > 1 else (-1, 1)
        self.binary = bits == 1
        self.learned = LearnedScale(start)
        self.gain = 1 / float(np.sqrt(count * self.high))

    def scale(self, weight: Tensor) -> Tensor:  # noqa: ARG002  # learned, not computed
        """See :class:`WeightQuantizer`."""
        scale: Tensor = self.learned()
        return scale

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`Quantizer`."""
        step = along_rows(self.scale(values), values.ndim)
        if not self.binary:
            return learned_steps(values, step, self.low, self.high, self.gain)
        # codes 2 c - 1 with c in {0, 1}: the LSQ gradients of a grid of step 2 s that begins at -s
        ratio = values / step
        inside = ratio.detach().abs() < 1
        code = torch.where(ratio.detach() >= 0, 1.0, -1.0)
        slope = self.gain * (code - torch.where(inside, ratio.detach(), 0.0))
        through = values * inside
        bent = slope * step
        return (code * step).detach() + (through - through.detach()) + (bent - bent.detach())


class LearnedActivation(ActivationQuantizer):
    """A learned scale; see :mod:`rctk.qat.lsq`."""

    def __init__(self, start: float, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.learned = LearnedScale(torch.tensor(float(start)))

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`Quantizer`."""
        features = values[0].numel() if len(values) else 1
        gain = 1 / float(np.sqrt(features * self.high))
        return learned_steps(values, self.learned(), self.low, self.high, gain)

    def unit(self) -> Tensor:
        """See :class:`ActivationQuantizer`."""
        scale: Tensor = self.learned()
        return scale

    def steps(self) -> Steps:
        """See :class:`ActivationQuantizer`."""
        return Steps(scale=float(self.unit().detach()), low=self.low, high=self.high)


class FixedActivation(ActivationQuantizer):
    """The grid that calibration found, for the whole training."""

    step: Tensor

    def __init__(self, start: float, low: int, high: int, grad: str = "clipped") -> None:
        super().__init__()
        self.low, self.high, self.grad = low, high, grad
        self.register_buffer("step", torch.tensor(max(float(start), MIN_SCALE)))

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`Quantizer`."""
        return straight_steps(values, self.step, self.low, self.high, self.grad)

    def unit(self) -> Tensor:
        """See :class:`ActivationQuantizer`."""
        return self.step

    def steps(self) -> Steps:
        """See :class:`ActivationQuantizer`."""
        return Steps(scale=float(self.step), low=self.low, high=self.high)


class RangeWeight(WeightQuantizer):
    """The scale follows the largest weight, in every step."""

    def __init__(self, bits: int, *, per_channel: bool, grad: str = "clipped") -> None:
        super().__init__()
        self.high = max(int(2 ** (bits - 1) - 1), 1)
        self.per_channel, self.grad = per_channel, grad

    def scale(self, weight: Tensor) -> Tensor:
        """See :class:`WeightQuantizer`."""
        size = weight.detach().abs()
        largest = size.flatten(1).amax(dim=1) if self.per_channel else size.amax()
        return (largest / self.high).clamp_min(MIN_SCALE)

    def quantize(self, values: Tensor) -> Tensor:
        """See :class:`Quantizer`."""
        step = along_rows(self.scale(values), values.ndim)
        return straight_steps(values, step, -self.high, self.high, self.grad)


class BinaryWeight(WeightQuantizer, ABC):
    """Codes -1 and 1 of a latent weight that is kept in [-1, 1] while it is trained."""

    def __init__(self, *, per_channel: bool) -> None:
        super().__init__()
        self.per_channel = per_channel

    def scale(self, weight: Tensor) -> Tensor:
        """Return 1, as weights are exactly -1 and 1; a method may have another scale."""
        return weight.new_ones(len(weight) if self.per_channel else ())

    def clip(self, weight: Tensor) -> None:
        """Put the latent weight back into [-1, 1]."""
        if self.training and weight.requires_grad and weight.is_leaf:
            with torch.no_grad():
                weight.clamp_(-1, 1)
