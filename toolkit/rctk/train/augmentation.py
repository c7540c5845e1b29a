"""Random changes of training images, by name."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from rctk_export.registry import Family


class Augmentation(Protocol):
    """A frozen dataclass of settings that changes a batch."""

    mixes: ClassVar[bool]
    """Whether labels change too; they then arrive as shares of the classes."""

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return changed images and labels.

        Args:
            x: ``(N, C, H, W)`` in [0, 1].
            y: ``(N,)``, or ``(N, K)`` shares where an augmentation of the run mixes.
            generator: On the CPU; the only source of randomness.
        """
        ...


AUGMENTATIONS: Family[Augmentation] = Family(
    "augmentation",
    {
        "aug.crop": "rctk.train.crop:Crop",
        "aug.cutmix": "rctk.train.cutmix:CutMix",
        "aug.cutout": "rctk.train.cutout:Cutout",
        "aug.flip": "rctk.train.flip:Flip",
        "aug.mixup": "rctk.train.mixup:MixUp",
    },
)


def build_augmentations(text: str) -> tuple[Augmentation, ...]:
    """Make augmentations from their ids, separated by ``+``; ``crop`` is short for ``aug.crop``.

    ``none`` is no change and ``crop-flip`` the usual pair. Settings may be separated by ``;`` where the comma means
    something else.

    Example:
        >>> build_augmentations("crop:padding=2+flip")
        (Crop(padding=2), Flip())
        >>> build_augmentations("")
        ()
    """
    parts = text.replace("crop-flip", "crop+flip").replace(";", ",").split("+") if text != "none" else []
    return tuple(AUGMENTATIONS.build("aug." + part.strip().removeprefix("aug.")) for part in parts if part)
