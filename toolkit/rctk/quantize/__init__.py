"""Post-training quantization on the ONNX graph: calibrators, and the walk that feeds them."""

from __future__ import annotations

from rctk.quantize.observer import Calibrator
from rctk_export.registry import Family

CALIBRATORS: Family[Calibrator] = Family(
    "calibrator",
    {
        "minmax": "rctk.quantize.minmax:MinMax",
        "moving-average": "rctk.quantize.moving_average:MovingAverage",
        "percentile": "rctk.quantize.percentile:Percentile",
        "entropy": "rctk.quantize.entropy:Entropy",
        "mse": "rctk.quantize.mse:Mse",
    },
)
