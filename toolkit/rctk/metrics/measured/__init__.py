"""Metrics by name that need passes of their own: ``rctk attack --metric NAME:key=value``."""

from __future__ import annotations

from rctk.metrics.measured.metric import Metric
from rctk_export.registry import Family

__all__ = ["METRICS", "Metric"]

METRICS: Family[Metric] = Family(
    "metric",
    {
        "clever": "rctk.metrics.measured.clever:CleverOfImages",
        "distance": "rctk.metrics.measured.distance:Distance",
        "r-inf": "rctk.metrics.measured.r_inf:RInf",
        "r2": "rctk.metrics.measured.r2:R2OfDeepFool",
    },
)
