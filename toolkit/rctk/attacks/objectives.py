"""Losses by name, with what each needs to know about an image beside its label."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

from torch import Tensor, nn

from rctk.attacks import logit_scale
from rctk.attacks.losses import Loss, LossName, cross_entropy, dlr, negative_margin, targeted_dlr
from rctk.attacks.targets import wrong_classes
from rctk_kernels.errors import OptionError


def _label(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    del model, x
    return y


def _likeliest_wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return wrong_classes(model, x, y)[:, 0]


class Objective(NamedTuple):
    """What an attack maximises.

    Attributes:
        loss: Its third argument is what ``aside`` returned.
        aside: ``(model, x, y)`` to one number per original ``(N,)``; asked once.
        passes: What that costs, in model passes per image.
    """

    loss: Loss
    aside: Callable[[nn.Module, Tensor, Tensor], Tensor] = _label
    passes: int = 0


OBJECTIVES: dict[LossName, Objective] = {
    "ce": Objective(cross_entropy),
    "margin": Objective(negative_margin),
    "dlr": Objective(dlr),
    "dlr-t": Objective(targeted_dlr, _likeliest_wrong, 1),
    "njs": Objective(logit_scale.scaled_cross_entropy, logit_scale.njs_scale, 1 + logit_scale.CLASSES),
    "hns": Objective(logit_scale.scaled_cross_entropy, logit_scale.hns_scale, 1 + logit_scale.CLASSES),
}


def require_loss(name: str, attack: str) -> None:
    """Refuse a loss that is not in the table."""
    if name not in get_args(LossName):
        raise OptionError(f"{attack}:loss must be one of {', '.join(OBJECTIVES)}, got {name!r}")
