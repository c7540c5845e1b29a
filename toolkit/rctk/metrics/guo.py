"""The two robustness measures of Guo et al. for sparse networks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.evaluation.judge import AttackResult, Flags
from rctk_kernels.errors import OptionError


class R2(NamedTuple):
    """Mean l2 distance that DeepFool needs.

    Attributes:
        value: Mean over all images of "right when clean" times the distance.
        failures: Right images that DeepFool did not break; their distance is unknown and counts as 0 in ``value``,
            which is then too small.
    """

    value: float
    failures: int


def r_inf(fgsm: AttackResult) -> float:
    """Return the share of images that are right after one FGSM step of a fixed size.

    Weak by construction: one step is the easiest attack to mask. Never rank models by it alone.

    Reference:
        Guo, Zhang, Zhang, Chen, "Sparse DNNs with Improved Adversarial Robustness", NeurIPS 2018.
        https://arxiv.org/abs/1810.09619

    Args:
        fgsm: From the judge; images that are wrong when clean stay wrong.
    """
    return fgsm.robust_accuracy


def r_2(clean: Flags, broken: Flags, l2: npt.ArrayLike) -> R2:
    """Return the mean l2 distance of DeepFool's results; see :func:`r_inf` for the reference.

    Args:
        clean: ``(N,)``; right on the clean image.
        broken: ``(N,)``; wrong on DeepFool's image, by the judge.
        l2: ``(N,)``; length of the change.

    Example:
        >>> r_2(np.array([True, True, False]), np.array([True, True, True]), [0.5, 1.0, 9.0])
        R2(value=0.5, failures=0)
    """
    length = np.asarray(l2, dtype=np.float64)
    if not clean.shape == broken.shape == length.shape or not len(length):
        raise OptionError(f"expected (N,) three times, got {clean.shape}, {broken.shape} and {length.shape}")
    counted = np.where(clean & broken, length, 0.0)
    return R2(value=float(counted.mean()), failures=int((clean & ~broken).sum()))
