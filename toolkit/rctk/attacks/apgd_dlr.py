"""Auto-PGD on the difference of logits ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rctk.attacks.apgd_ce import APGDCrossEntropy
from rctk.attacks.losses import LossName


@dataclass(frozen=True, kw_only=True)
class APGDRatio(APGDCrossEntropy):
    """Auto-PGD with the DLR loss, which neither the scale of the logits nor their shift can blind.

    All else is as in :class:`rctk.attacks.apgd_ce.APGDCrossEntropy`. With two classes the loss is the margin.

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks", ICML 2020, eq. 6. https://arxiv.org/abs/2003.01690
    """

    name: ClassVar[str] = "apgd-dlr"

    loss: LossName = "dlr"
