"""Learning rates over a run."""

from __future__ import annotations

import math

from rctk_kernels.errors import OptionError

PEAK = 0.4
"""Share of the steps at which the cyclic schedule is highest, as in Wong et al., ICLR 2020."""


def lr_share(schedule: str, done: float) -> float:
    """Return the learning rate as a share of the largest one.

    Args:
        schedule: ``constant``, ``cosine`` or ``cyclic``.
        done: Share of all steps that lie behind, in [0, 1].

    Example:
        >>> lr_share("cosine", 0.5), lr_share("cyclic", 0.2), lr_share("cyclic", 1.0)
        (0.5, 0.5, 0.0)
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return round((1 + math.cos(math.pi * done)) / 2, 12)
    if schedule == "cyclic":
        return done / PEAK if done < PEAK else (1 - done) / (1 - PEAK)
    raise OptionError(f"unknown schedule {schedule!r}; choose from constant, cosine, cyclic")
