"""Adversarial training of a quantized net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.qat.quantizer import Quantizer
from rctk.train.inner import Adversarial
from rctk.train.settings import need
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class QatAt(Adversarial):
    """Cross-entropy on images attacked through the quantized forward pass, the float one, or half of each.

    Scales and BatchNorm statistics rest during the attack: it computes no gradient but that of the images, and runs in
    evaluation mode, in which the net computes what its file will. Validation attacks the quantized net in any case.

    Attributes:
        attack_on: ``quant`` attacks the net that ships; ``float`` switches the quantizers off meanwhile; ``both``
            attacks every other image each way.
        clean: Weight of clean images in the loss.

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, composed with
        fake quantization. https://arxiv.org/abs/1706.06083
    """

    name: ClassVar[str] = "qat-at"

    attack_on: Literal["quant", "float", "both"] = "quant"
    clean: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack_on not in {"quant", "float", "both"}:
            raise OptionError(f"{self.name} needs attack_on quant, float or both, got {self.attack_on!r}")
        need(self.name, ("0 <= clean < 1", self.clean, 0 <= self.clean < 1))
        if self.attack_mode != "eval":
            raise OptionError(
                f"{self.name} attacks in evaluation mode, where scales and statistics rest, got attack_mode "
                f"{self.attack_mode!r}; leave it out"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean over the batch; see :class:`rctk.train.objective.Objective`."""
        loss = F.cross_entropy(model(self._adversarial(model, x, y, generator)), y)
        return loss if not self.clean else (1 - self.clean) * loss + self.clean * F.cross_entropy(model(x), y)

    def _adversarial(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        if self.attack_on == "quant":
            return self.attacked(model, x, y, generator)
        rows = slice(None) if self.attack_on == "float" else slice(1, None, 2)
        result = x.clone()
        if len(x[rows]):
            with quantizers_off(model):
                result[rows] = self.attacked(model, x[rows], y[rows], generator)
        if self.attack_on == "both":
            result[::2] = self.attacked(model, x[::2], y[::2], generator)
        return result


@contextmanager
def quantizers_off(model: nn.Module) -> Iterator[None]:
    """Let values through as they are for the block."""
    found = [module for module in model.modules() if isinstance(module, Quantizer)]
    before = [module.off for module in found]
    try:
        for module in found:
            module.off = True
        yield
    finally:
        for module, off in zip(found, before, strict=True):
            module.off = off
