"""How good a model is on the validation images, to choose between epochs; what is reported comes from the judge."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.train.batches import Share, seed_of
from rctk.train.inner import InnerPgd, modes_kept
from rctk.train.settings import TrainSettings

BATCH = 512
STEP = 0.25
"""Length of a step of the validating attack as a share of its budget."""


def validate(
    fabric: Fabric, model: nn.Module, split: Split, settings: TrainSettings, share: Share
) -> tuple[float, float]:
    """Return clean accuracy and accuracy under PGD, with the same random start after every epoch.

    Args:
        fabric: Sets the precision, which is that of the training, and adds up what several processes find.
        model: Maps images in [0, 1] to logits.
        split: Validation images.
        settings: Of the run.
        share: What of them this process looks at.
    """
    eps = settings.attack_eps
    attack = InnerPgd(eps=eps, steps=settings.validation_steps, step_size=STEP)
    generator = torch.Generator().manual_seed(seed_of(settings.seed, share.rank))
    counts = torch.zeros(2, dtype=torch.float64, device=share.device)
    with modes_kept(model), fabric.autocast():
        model.eval()
        for x, y in share.in_order(split, BATCH):
            right = correct(model, x, y)
            kept = right & correct(model, attack(model, x, y, generator), y) if eps > 0 else right
            counts += torch.stack([right.sum(), kept.sum()])
    clean, robust = (add_up(fabric, counts) / len(split)).tolist()
    return clean, robust


def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images the model gets right, ``(N,)``."""
    with torch.no_grad():
        return model(x).argmax(dim=1) == y  # type: ignore[no-any-return]


def add_up(fabric: Fabric, values: Tensor) -> Tensor:
    """Return the sum over all processes."""
    return values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum")  # type: ignore[return-value]
