"""How large the perturbations are that succeed, and what they cost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.evaluation.judge import AttackResult, Flags
from rctk.statistics.bootstrap import Estimate, bootstrap, median
from rctk_kernels.errors import OptionError


class Perturbation(NamedTuple):
    """Sizes over broken images, in units of [0, 1] images; None where no image was broken.

    Attributes:
        success: Attack success: share of the images that were right when clean and are broken.
        mean_l2: Mean length.
        median_l2: Median length.
        mean_linf: Mean of the largest change of a pixel.
        median_linf: Its median.
        mean_queries: Mean queries per attacked image, broken or not.
        median_queries: Median queries of the broken images.
    """

    success: float | None
    mean_l2: float | None
    median_l2: float | None
    mean_linf: float | None
    median_linf: float | None
    mean_queries: float | None
    median_queries: float | None


def perturbation(result: AttackResult) -> Perturbation:
    """Summarise what one attack did; under a fixed budget sizes say little, see :func:`median_norm`."""
    return perturbation_of(result.clean, result.robust, result.linf, result.l2, result.queries)


def perturbation_of(
    clean: Flags,
    robust: Flags,
    linf: npt.NDArray[np.float32],
    l2: npt.NDArray[np.float32],
    queries: npt.NDArray[np.int64],
) -> Perturbation:
    """Summarise sizes ``linf`` and ``l2`` and ``queries``, all ``(N,)``, over the images that broke."""
    broken = clean & ~robust
    return Perturbation(
        success=float(broken.sum() / clean.sum()) if clean.any() else None,
        mean_l2=_mean(l2[broken]),
        median_l2=_median(l2[broken]),
        mean_linf=_mean(linf[broken]),
        median_linf=_median(linf[broken]),
        mean_queries=_mean(queries[clean]),
        median_queries=_median(queries[broken]),
    )


def median_norm(clean: Flags, broken: Flags, norm: npt.ArrayLike, *, seed: int = 0) -> Estimate:
    """Return the median size of a minimum-norm attack with its bootstrap interval, over all images.

    A misclassified image counts as 0, an image that was not broken as +inf, so that a failing attack cannot shrink the
    median.

    Args:
        clean: ``(N,)``; right on the clean image.
        broken: ``(N,)``; the attack found a success.
        norm: ``(N,)``; its size.
        seed: Of the resampling.

    Example:
        >>> yes = np.array([True, True, True])
        >>> median_norm(yes, np.array([True, True, False]), [0.5, 0.25, 9.0]).value
        0.5
    """
    sizes = np.asarray(norm, dtype=np.float64)
    if not clean.shape == broken.shape == sizes.shape:
        raise OptionError(f"expected (N,) three times, got {clean.shape}, {broken.shape} and {sizes.shape}")
    sizes = np.where(broken, sizes, np.inf)
    return bootstrap(np.where(clean, sizes, 0.0), median, seed=seed)


def _mean(values: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _median(values: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> float | None:
    return float(np.median(values)) if len(values) else None
