"""``quant.pwlq``: weights on two uniform grids, a fine one around zero and a coarse one for the tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rctk.compress.step import Context, Draft
from rctk.quantize.layers import weight_layers
from rctk_export.quantize.formats import Weight
from rctk_export.quantize.grid import shaped, usable
from rctk_kernels.errors import OptionError

Array = npt.NDArray[Any]
LARGEST = 127
"""Largest int8 code."""


@dataclass(frozen=True, kw_only=True)
class Pwlq:
    """Piecewise linear quantization of weights after training.

    With ``n = 2^(bits - 1) - 1``, magnitudes up to a breakpoint ``p`` are rounded to ``n`` steps of ``s = p / n``, and
    those from there to the largest one, ``m``, to ``n`` steps of ``(m - p) / n``: about ``bits + 1`` bits of
    information for each weight, fine where most weights are. The paper minimises the expected error under a fitted
    distribution. Here each channel takes the ``p`` with the least squared error of its own weights, among those whose
    coarse step is a whole multiple of ``s``: then ``code * s`` holds both grids, and the codes are int8 codes.

    Limits: the file stores those codes in 8 bits, so size and speed are those of int8; it shows the accuracy of such a
    grid, and compresses better. Weights that are zero stay code 0. ``bits`` is for all layers but those whose own width
    an earlier step chose (``quant.layer_bits``, ``edge_layers``): these keep it, on one even grid.

    Attributes:
        bits: Width of the fine grid, 2 to 7; with 7 both steps are equal.

    Reference:
        Fang et al., "Post-Training Piecewise Linear Quantization for Deep Neural Networks", ECCV 2020, section 3.
        https://arxiv.org/abs/2002.00104
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "grids"
    bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 7:
            raise OptionError(f"quant.pwlq has 2 to 7 bits, got {self.bits}; quant.ptq_static8 has 8")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        layers = [layer for layer in weight_layers(draft) if layer.name not in draft.formats.layer_bits]
        weights, breakpoints = dict(draft.formats.weights), []
        with context.progress.stage("two grids", len(layers)) as step:
            for layer in layers:
                flat = layer.weight.reshape(len(layer.weight) if draft.formats.per_channel else 1, -1)
                codes, scales, ratios = two_grids(flat, self.bits)
                scales = scales if draft.formats.per_channel else scales.reshape(())
                weights[layer.name] = Weight(scales=scales, codes=codes.reshape(layer.weight.shape))
                breakpoints.append(float((1 / (1 + ratios)).mean()))
                step(1)
        stored = dict.fromkeys([layer.name for layer in layers], 8)
        draft = draft.with_formats(weights=weights, layer_bits={**draft.formats.layer_bits, **stored})
        return draft.noted("quant.pwlq", bits=self.bits, mean_breakpoint=float(np.mean(breakpoints or [0.0])))


def two_grids(weights: Array, bits: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return codes, fine steps, and how many of these make a coarse one, for rows of weights.

    Args:
        weights: ``(O, I)``; each row gets grids of its own.
        bits: Width of the fine grid, 2 to 7.

    Returns:
        ``(O, I)`` int8, ``(O,)`` float32 and ``(O,)``; code times step is the value. The breakpoint is at a share of
        ``1 / (1 + ratio)`` of the largest magnitude.

    Example:
        >>> codes, steps, ratios = two_grids(np.array([[0, 0.125, -0.125, 0.125, 1.25]]), 2)
        >>> codes.tolist(), steps.tolist(), ratios.tolist()
        ([[0, 1, -1, 1, 10]], [0.125], [9])
    """
    count = 2 ** (bits - 1) - 1
    largest = np.abs(weights).max(axis=1)
    best = np.full(len(weights), np.inf)
    steps, ratios = np.ones(len(weights), np.float32), np.ones(len(weights), np.int64)
    for ratio in range(1, (LARGEST - count) // count + 1):
        step = usable(largest / (count * (1 + ratio)))
        error = np.square(_codes(weights, step, ratio, count) * shaped(step, 2) - weights).sum(axis=1)
        better = error < best
        best, steps, ratios = (
            np.where(better, error, best),
            np.where(better, step, steps),
            np.where(better, ratio, ratios),
        )
    return _codes(weights, steps, ratios[:, None], count).astype(np.int8), steps, ratios


def _codes(weights: Array, steps: Array, ratio: Array | int, count: int) -> Array:
    """Round to the fine grid up to ``count`` steps, and behind it to every ``ratio``-th."""
    size = np.abs(weights) / shaped(steps, 2)
    tail = count + ratio * np.rint((size - count) / ratio).clip(0, count)
    return np.asarray(np.sign(weights) * np.where(size <= count, np.rint(size), tail))
