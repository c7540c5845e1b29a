"""Number formats of a quantized graph: widths, grids that were learned, and weights whose codes are decided already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import OptionError, QuantizationError

WIDTHS = range(2, 9)
"""Bits of a code that rounding can choose; codes of 1 bit are learned and come as :class:`Weight`."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """An activation grid whatever the target: ``low .. high`` steps of ``scale`` around real 0.

    Attributes:
        scale: Real length of one step; float32 and positive.
        low: Smallest multiple of ``scale``, at most 0.
        high: Largest multiple of ``scale``, at least 0; at most 255 steps above ``low``.

    A target with zero point 0 holds it if it lies in -128..127, a uint8 target always: its zero point is ``-low``.

    Example:
        >>> Steps(scale=0.25, low=0, high=15).reach
        (0.0, 3.75)
    """

    scale: float
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise QuantizationError(f"a scale must be positive and finite, got {self.scale}")
        if not self.low <= 0 <= self.high or not 0 < self.high - self.low <= 255:
            raise QuantizationError(f"steps must reach from at most 0 to at least 0, got {self.low}..{self.high}")

    @property
    def reach(self) -> tuple[float, float]:
        """Smallest and largest real value."""
        return self.low * self.scale, self.high * self.scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """How one weight is stored, decided before the file is written.

    Attributes:
        scales: ``(O,)``, or ``()`` for one scale per tensor; float32, positive.
        codes: int8, the shape of the weight; None rounds the weight to the nearest code of ``scales``.
    """

    scales: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int8] | None = None


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Widths by default and by name, and what is decided already.

    Attributes:
        weight_bits: Width of a weight code, 2 to 8.
        activation_bits: Width of an activation code, 2 to 8.
        per_channel: One weight scale per output channel; otherwise one per tensor.
        layer_bits: Layer to width of its weight, where it is not ``weight_bits``.
        tensor_bits: Tensor to width of its codes, where it is not ``activation_bits``.
        steps: Tensor to its grid; such a tensor is not calibrated.
        weights: Layer to its scales, with or without codes.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    tensor_bits: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, Steps] = field(default_factory=dict)
    weights: Mapping[str, Weight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        widths = {"weights": self.weight_bits, "activations": self.activation_bits}
        for name, bits in {**widths, **self.layer_bits, **self.tensor_bits}.items():
            if bits not in WIDTHS:
                raise OptionError(f"{name}: codes have 2 to 8 bits, got {bits}")

    def of_layer(self, name: str) -> int:
        """Return the width of the weight of layer ``name``."""
        return self.layer_bits.get(name, self.weight_bits)

    def of_tensor(self, name: str) -> int:
        """Return the width of tensor ``name``."""
        return self.tensor_bits.get(name, self.activation_bits)

    def facts(self) -> dict[str, Any]:
        """Return plain values for a manifest: widths and which names have learned grids."""
        return {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "weights": "per-channel" if self.per_channel else "per-tensor",
            "layer_bits": dict(self.layer_bits),
            "tensor_bits": dict(self.tensor_bits),
            "given_grids": sorted(self.steps),
            "given_codes": sorted(name for name, weight in self.weights.items() if weight.codes is not None),
            "given_scales": sorted(self.weights),
        }
