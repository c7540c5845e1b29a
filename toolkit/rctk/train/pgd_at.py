"""Adversarial training with projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.train.inner import Adversarial
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PgdAt(Adversarial):
    """Cross-entropy on the worst images that a short linf attack finds around each batch.

    The original recipe attacks in training mode (``attack_mode=train``). That the most robust epoch is kept (Rice et
    al., "Overfitting in Adversarially Robust Deep Learning", ICML 2020, https://arxiv.org/abs/2002.11569) is the loop's
    part.

    Attributes:
        label_smoothing: Share of each label that is spread over all classes, in the outer loss; more than 0.3 harms.

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
        https://arxiv.org/abs/1706.06083
    """

    name: ClassVar[str] = "pgd-at"

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise OptionError(f"pgd-at:label_smoothing must lie in [0, 1), got {self.label_smoothing}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean cross-entropy on attacked images; see :class:`rctk.train.objective.Objective`."""
        adversarial = self.attacked(model, x, y, generator)
        return F.cross_entropy(model(adversarial), y, label_smoothing=self.label_smoothing)
