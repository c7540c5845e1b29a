"""Which wrong classes an attack aims at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rctk.attacks.gradients import classify


def wrong_classes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return all classes but the true one, the highest logit first, ``(N, K - 1)``."""
    return ranked(classify(model, x), y)


def ranked(logits: Tensor, y: Tensor) -> Tensor:
    """Return the classes but ``y``, the highest of ``logits`` ``(N, K)`` first, ``(N, K - 1)``."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]
