"""The cross-entropy of scaled logits, whose gradient survives where large logits saturate the softmax.

A factor on the logits leaves every predicted class as it is, but decides whether the cross-entropy has a gradient that
float32 can hold. Both scales are found per image, once, on the original. They look at its ten most likely classes.

Reference:
    Gupta and Ajanthan, "Improved Gradient Based Adversarial Attacks for Quantized Networks", AAAI 2022.
    https://arxiv.org/abs/2003.13511
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.attacks.slopes import Slopes, slopes

CLASSES = 10
RHO = 0.01
"""Smallest share of probability that is to be left for the wrong classes."""
_TINY = 1e-12
_GRID = torch.logspace(-4, 3, 141)
"""Scales that HNS tries, in units of one over the spread of the logits."""


def scaled_cross_entropy(logits: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Return the cross-entropy of ``scale`` ``(N,)`` times the logits."""
    return F.cross_entropy(logits * scale[:, None], y, reduction="none")


def njs_scale(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return one scale per image that brings the mean singular value of the Jacobian to 1, ``(N,)``.

    Where the scaled softmax still leaves less than ``RHO`` to the wrong classes, a second factor brings them there.
    """
    del y
    seen = _jacobian(model, x)
    values = torch.linalg.svdvals(seen.gradients.flatten(2))
    scale = 1 / values.mean(dim=1).clamp(min=_TINY)
    logits = seen.values * scale[:, None]
    classes = logits.shape[1]
    spread = (logits.amax(dim=1) - logits.amin(dim=1)).clamp(min=_TINY)
    softer = -math.log(RHO / ((classes - 1) * (1 - RHO))) / spread
    sure = 1 - logits.softmax(dim=1).amax(dim=1) <= RHO
    return torch.where(sure, scale * softer, scale)


def hns_scale(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return one scale per image that maximises the norm of the Hessian of the cross-entropy by the image, ``(N,)``.

    With piecewise linear logits ``z`` the Hessian is ``b^2 J^T (diag(p) - p p^T) J`` for ``p = softmax(b z)``, so its
    norm for every ``b`` follows from one Jacobian ``J``.
    """
    del y
    seen = _jacobian(model, x)
    flat = seen.gradients.flatten(2)
    gram = flat @ flat.transpose(1, 2)
    spread = (seen.values.amax(dim=1) - seen.values.amin(dim=1)).clamp(min=_TINY)
    scales = _GRID.to(x.device)[:, None] / spread
    norms = torch.stack([_hessian_norm(seen.values, gram, scale) for scale in scales])
    return scales.gather(0, norms.argmax(dim=0, keepdim=True))[0]


def _hessian_norm(logits: Tensor, gram: Tensor, scale: Tensor) -> Tensor:
    p = (logits * scale[:, None]).softmax(dim=1)
    curved = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ gram
    trace = (curved * curved.transpose(1, 2)).sum(dim=(1, 2))
    return scale**2 * trace.clamp(min=0).sqrt()


def _jacobian(model: nn.Module, x: Tensor) -> Slopes:
    return slopes(model, x, lambda logits: logits.topk(min(CLASSES, logits.shape[1]), dim=1).values)
