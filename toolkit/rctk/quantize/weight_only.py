"""``quant.weight_only``: linear layers store weights of 8, 4 or 2 bits; activations have no grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from rctk.compress.step import UNCALIBRATED, Context, Draft, Form
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class WeightOnly:
    """Write a file for target ``cpu`` whose linear layers hold integers; convolutions and activations stay float.

    The file gets smaller. It gets faster only where ONNX Runtime reads the codes directly (``MatMulNBits``); the
    manifest names those layers as ``integer_kernels``, as this machine's ONNX Runtime reports them. Steps that choose
    scales or codes (`quant.seqmse`, `quant.adaround`) come behind this one, so that they know the width; rounding to
    nearest in 2 bits leaves three values, and most weights become 0.

    Attributes:
        bits: 8, 4 or 2. Fewer bits are a smaller file: 4 run fastest, 2 no faster than 4.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "formats"
    decides: ClassVar[Mapping[str, str]] = dict.fromkeys(UNCALIBRATED, "")
    form: ClassVar[Form] = "weight-only"
    bits: int = 4

    def __post_init__(self) -> None:
        if self.bits not in {2, 4, 8}:
            raise OptionError(f"quant.weight_only stores 8, 4 or 2 bits, got {self.bits}; other widths have no type")

    def __call__(self, draft: Draft, context: Context) -> Draft:  # noqa: ARG002  # no images are needed
        """See :class:`rctk.compress.step.GraphStep`."""
        changed = replace(draft, form=self.form).with_formats(weight_bits=self.bits)
        return changed.noted("quant.weight_only", bits=self.bits)
