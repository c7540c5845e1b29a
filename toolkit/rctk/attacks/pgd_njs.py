"""PGD on the cross-entropy of logits scaled so that the mean singular value of the Jacobian is 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rctk.attacks.losses import LossName
from rctk.attacks.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class PGDNJS(PGD):
    """PGD with Network Jacobian Scaling, against networks whose large logits saturate the softmax.

    All else is as in :class:`rctk.attacks.pgd.PGD`; the scale is found per image, see
    :func:`rctk.attacks.logit_scale.njs_scale`.

    Reference:
        Gupta and Ajanthan, "Improved Gradient Based Adversarial Attacks for Quantized Networks", AAAI 2022,
        section 4. https://arxiv.org/abs/2003.13511
    """

    name: ClassVar[str] = "pgd-njs"

    steps: int = 20
    step_size: float | None = 0.25
    loss: LossName = "njs"
