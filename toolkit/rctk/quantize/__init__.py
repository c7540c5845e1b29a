"""Post-training quantization on the ONNX graph: calibrators, and the walk that feeds them."""

from __future__ import annotations

from rctk.quantize.observer import Calibrator
from rctk_export.registry import Family

CALIBRATORS: Family[Calibrator] = Family(
    "calibrator",
    {
        "minmax": "rctk.quantize.minmax:MinMax",
        "percentile": "rctk.quantize.percentile:Percentile",
    },
)
