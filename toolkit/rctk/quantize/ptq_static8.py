"""``quant.ptq_static8``: widths, calibrator and calibration images of post-training quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from rctk.compress.step import Context, Draft
from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Images, Kind
from rctk.quantize.layers import weight_layers
from rctk.threat import ThreatModel
from rctk_export.quantize.formats import Formats


@dataclass(frozen=True, kw_only=True)
class PtqStatic8:
    """Choose formats; the export calibrates and writes them.

    Attributes:
        calibrator: A row of the calibrator table with its settings, such as ``percentile:p=99.99``.
        weights: One weight scale per output channel, or one per tensor.
        weight_bits: Width of weight codes, 2 to 8.
        activation_bits: Width of activation codes, 2 to 8; only 8 are fast on today's runtimes.
        edge_layers: First and last layer: 8 bits (``int8``), ``same`` widths as the rest, or ``float``.
        calib: Calibration images: ``clean``, ``adv`` (PGD against the float graph) or ``mix``.
        eps: Budget of the adversarial ones, linf.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "formats"
    decides: ClassVar[Mapping[str, str]] = {
        "calibrator": "calibrator",
        "weights": "weights",
        "calibration_kind": "calib",
        "calibration_eps": "eps",
    }
    """Settings of an export, and what they are called here."""
    calibrator: str = "minmax"
    weights: Literal["per-channel", "per-tensor"] = "per-channel"
    weight_bits: int = 8
    activation_bits: int = 8
    edge_layers: Literal["int8", "same", "float"] = "int8"
    calib: Kind = "clean"
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        CALIBRATORS.build(self.calibrator)
        ThreatModel(eps=self.eps)
        Formats(weight_bits=self.weight_bits, activation_bits=self.activation_bits)

    def __call__(self, draft: Draft, context: Context) -> Draft:  # noqa: ARG002  # the export calibrates
        """See :class:`rctk.compress.step.GraphStep`."""
        draft = replace(draft, calibrator=self.calibrator, images=Images(kind=self.calib, eps=self.eps))
        draft = draft.with_formats(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            per_channel=self.weights == "per-channel",
        )
        layers = weight_layers(draft)
        edges = {layer.name: layer for layer in (layers[0], layers[-1])} if layers else {}
        if self.edge_layers == "float":
            draft = replace(draft, keep_float=tuple(dict.fromkeys([*draft.keep_float, *edges])))
        elif self.edge_layers == "int8" and (self.weight_bits < 8 or self.activation_bits < 8):
            bits = dict.fromkeys(edges, 8)
            tensors = dict.fromkeys([layer.input for layer in edges.values()], 8)
            draft = draft.with_formats(
                layer_bits={**draft.formats.layer_bits, **bits}, tensor_bits={**draft.formats.tensor_bits, **tensors}
            )
        return draft.noted("quant.ptq_static8", edge_layers=self.edge_layers)
