"""Intervals and paired tests for counts of correct samples; NumPy and math only, so they run on the device."""

from __future__ import annotations

from rctk.statistics.interval import Interval, wilson
from rctk.statistics.non_inferiority import Outcome, Verdict, non_inferiority
from rctk.statistics.paired import Paired, mcnemar_exact, paired_difference
from rctk.statistics.tango import tango_interval, tango_lower, tango_upper

__all__ = [
    "Interval",
    "Outcome",
    "Paired",
    "Verdict",
    "mcnemar_exact",
    "non_inferiority",
    "paired_difference",
    "tango_interval",
    "tango_lower",
    "tango_upper",
    "wilson",
]
