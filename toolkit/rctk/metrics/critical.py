"""The attack strength from which on bit width makes no difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rctk_kernels.errors import OptionError

TOLERANCE = 0.01


class CriticalStrength(NamedTuple):
    """Where curves of accuracy over strength meet for good.

    Attributes:
        eps: Smallest tested strength from which on every form stays within the tolerance of float; None where they
            still differ at the largest.
        at_floor: Whether float is at chance or below there: all forms are then merely broken alike.
        better_below: Per form, share of the strengths below ``eps`` at which it is better than float.
        worse_below: And at which it is worse.
    """

    eps: float | None
    at_floor: bool
    better_below: dict[str, float]
    worse_below: dict[str, float]


def critical_strength(
    eps: Sequence[float],
    float_accuracy: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    *,
    classes: int,
    tolerance: float = TOLERANCE,
) -> CriticalStrength:
    """Return the smallest ``eps`` from which on ``|accuracy - float_accuracy| <= tolerance`` for all forms.

    A reconstruction of the paper's measure. Differences within the sampling error are no finding: use enough images
    that the interval of a difference is shorter than the tolerance.

    Args:
        eps: ``(E,)`` rising strengths, the same images at each.
        float_accuracy: ``(E,)`` shares.
        accuracy: Per form, such as ``"4 bits"``, ``(E,)`` shares.
        classes: Of the task; chance is one over it.
        tolerance: A share.

    Reference:
        Gorsline, Smith, Merkel, "On the Adversarial Robustness of Quantized Neural Networks", GLSVLSI 2021.
        https://arxiv.org/abs/2105.00227

    Example:
        >>> critical_strength([0, 0.1, 0.2, 0.3], [0.9, 0.6, 0.3, 0.3], {"4": [0.8, 0.7, 0.3, 0.3]}, classes=10).eps
        0.2
    """
    strengths, base = np.asarray(eps, dtype=np.float64), np.asarray(float_accuracy, dtype=np.float64)
    others = {name: np.asarray(values, dtype=np.float64) for name, values in accuracy.items()}
    if not others or any(values.shape != strengths.shape for values in (base, *others.values())):
        raise OptionError(f"expected {len(strengths)} accuracies for float and for each of one or more forms")
    if not len(strengths) or (np.diff(strengths) <= 0).any():
        raise OptionError(f"strengths must rise, got {list(eps)}")
    gaps = {name: values - base for name, values in others.items()}
    apart = np.any([np.abs(gap) > tolerance * (1 + 1e-9) for gap in gaps.values()], axis=0)
    first = int(np.flatnonzero(apart).max()) + 1 if apart.any() else 0
    found = first < len(strengths)
    below = slice(0, first)
    return CriticalStrength(
        eps=float(strengths[first]) if found else None,
        at_floor=bool(found and base[first] <= 1 / classes),
        better_below={name: _share(gap[below] > tolerance) for name, gap in gaps.items()},
        worse_below={name: _share(gap[below] < -tolerance) for name, gap in gaps.items()},
    )


def _share(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float(flags.mean()) if flags.size else 0.0
