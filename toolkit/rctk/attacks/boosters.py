"""Changes to input and gradient that make candidates of one model fool another, for any number of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOOSTERS = ("mi", "ni", "di", "ti", "si", "vmi")
SCALES = 5
"""Copies ``x / 2^i`` that scale invariance averages over."""
DIVERSE_SHARE = 0.5
"""Share of images that input diversity resizes."""
SMALLEST = 0.9
"""Smallest side after resizing, as a share of the side."""
SPREAD = 3.0
"""Standard deviation of the translation kernel in pixels."""
REACH = 1.5
"""Radius in which variance tuning looks around, as a multiple of ``eps``."""


def diverse(x: Tensor, draws: Tensor) -> Tensor:
    """Shrink some images and pad them with zeros to their size, each in its own way (DI).

    Args:
        x: ``(N, C, H, W)``.
        draws: ``(N, 4)`` uniform in [0, 1): whether, to what size, how far down, how far right.

    Reference:
        Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019.
        https://arxiv.org/abs/1803.06978
    """
    height, width = x.shape[2:]
    down = _resampling(height, draws[:, 1], draws[:, 2])
    across = _resampling(width, draws[:, 1], draws[:, 3])
    resized = torch.einsum("nij,ncjk,nlk->ncil", down, x, across)
    return torch.where((draws[:, 0] < DIVERSE_SHARE)[:, None, None, None], resized, x)


def _resampling(full: int, size: Tensor, place: Tensor) -> Tensor:
    """Return bilinear weights ``(N, full, full)`` that shrink one side of each image; rows of zeros are padding."""
    smallest = max(int(SMALLEST * full), 1)
    side = smallest + (size * (full - smallest + 1)).floor()
    first = (place * (full - side + 1)).floor()
    step = torch.arange(full, device=size.device, dtype=size.dtype)
    within = step - first[:, None]  # (N, full): place of an output pixel in the small image
    source = ((within + 0.5) * (full / side)[:, None] - 0.5).clamp(0, full - 1)
    weights = (1 - (source[:, :, None] - step).abs()).clamp(min=0)
    inside = (within >= 0) & (within < side[:, None])
    return weights * inside[:, :, None]


def smooth(gradient: Tensor) -> Tensor:
    """Blur a gradient ``(N, C, H, W)`` with a Gaussian, as if it were averaged over shifted images (TI).

    The kernel has 15 pixels to a side, 7 below 64 pixels, and on tiny images at most an eighth of the smaller side
    on either side of its centre, because a blur of the whole image leaves nothing of the gradient.

    Reference:
        Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks", CVPR
        2019. https://arxiv.org/abs/1904.02884
    """
    channels = gradient.shape[1]
    smaller = min(gradient.shape[2:])
    half = 7 if smaller >= 64 else min(3, smaller // 8)
    places = torch.arange(-half, half + 1, device=gradient.device, dtype=gradient.dtype)
    bell = torch.exp(-((places / SPREAD) ** 2) / 2)
    kernel = torch.outer(bell, bell) / bell.sum() ** 2
    return F.conv2d(gradient, kernel.expand(channels, 1, -1, -1), padding=half, groups=channels)
