"""Candidates from a substitute."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rctk.attacks.apgd_ce import APGDCrossEntropy
from rctk.attacks.gradients import frozen
from rctk.data.split import Labels
from rctk.substitute.train import CHUNK
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


def craft_on(model: nn.Module, x: FloatNCHW, y: Labels, threat: ThreatModel, *, steps: int, seed: int) -> FloatNCHW:
    """Return for each image of ``x`` ``(N, C, H, W)`` the candidate with the highest loss on ``model``.

    Auto-PGD on the cross-entropy goes on after its first success, because a candidate has to fool the engine.
    """
    attack = APGDCrossEntropy(steps=steps, stop_at_success=False)
    parts = []
    with frozen(model):
        for images, labels in zip(torch.from_numpy(x).split(CHUNK), torch.from_numpy(y).split(CHUNK), strict=True):
            parts.append(attack(model, images, labels, threat, torch.Generator().manual_seed(seed)))
    return np.asarray(torch.cat(parts).numpy())
