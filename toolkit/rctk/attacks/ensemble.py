"""Several models as one, to craft candidates that fool all of them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from rctk_kernels.errors import AttackError, OptionError


class LogitEnsemble(nn.Module):
    """The mean of the logits of several models of the same classes.

    Args:
        models: Two or more; a model given twice counts once.

    Reference:
        Liu et al., "Delving into Transferable Adversarial Examples and Black-box Attacks", ICLR 2017; it averages
        probabilities, later work logits (Dong et al., CVPR 2018). https://arxiv.org/abs/1611.02770

    Example:
        >>> one, other = nn.Identity(), nn.Softplus()
        >>> LogitEnsemble(one, other)(torch.tensor([[40.0, -40.0]]))
        tensor([[ 40., -20.]])
    """

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(dict.fromkeys(models))
        if len(self.models) < 2:
            raise OptionError(f"an ensemble needs two or more different models, got {len(self.models)}")

    def forward(self, images: Tensor) -> Tensor:
        """Return mean logits ``(N, K)``."""
        logits = [cast("Tensor", model(images)) for model in self.models]
        shapes = sorted({tuple(each.shape) for each in logits})
        if len(shapes) > 1:
            raise AttackError(f"models of an ensemble must have the same classes, got logits of shapes {shapes}")
        return torch.stack(logits).mean(dim=0)
