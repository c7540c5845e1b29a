"""Learning rates over a run."""

from __future__ import annotations

import math

from rctk_export.registry import number
from rctk_kernels.errors import OptionError

PEAK = 0.4
"""Share of the steps at which the cyclic schedule is highest, as in Wong et al., ICLR 2020."""


def lr_share(schedule: str, done: float, milestones: str = "1/2+3/4") -> float:
    """Return the learning rate as a share of the largest one.

    Args:
        schedule: ``constant``, ``cosine``, ``cyclic`` or ``multistep``.
        done: Share of all steps that lie behind, in [0, 1].
        milestones: Where ``multistep`` falls tenfold, see :func:`milestones_of`; the default is that of Rice et al.,
            "Overfitting in Adversarially Robust Deep Learning", ICML 2020. https://arxiv.org/abs/2002.11569

    Example:
        >>> lr_share("cosine", 0.5), lr_share("cyclic", 0.2), lr_share("cyclic", 1.0), lr_share("multistep", 0.6)
        (0.5, 0.5, 0.0, 0.1)
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return round((1 + math.cos(math.pi * done)) / 2, 12)
    if schedule == "cyclic":
        return done / PEAK if done < PEAK else (1 - done) / (1 - PEAK)
    if schedule == "multistep":
        return 10.0 ** -sum(done >= milestone for milestone in milestones_of(milestones))
    raise OptionError(f"unknown schedule {schedule!r}; choose from constant, cosine, cyclic, multistep")


def milestones_of(text: str) -> tuple[float, ...]:
    """Read shares of a run, separated by ``+``.

    Example:
        >>> milestones_of("1/2+0.75")
        (0.5, 0.75)
    """
    try:
        shares = tuple(number(part) for part in text.split("+"))
    except OptionError:
        shares = (math.inf,)
    if not all(0 < share < 1 for share in shares) or sorted(set(shares)) != list(shares):
        raise OptionError(f"milestones must be rising shares between 0 and 1, such as 1/2+3/4, got {text!r}")
    return shares
