"""Targeted Auto-PGD as torchattacks runs it: a cross-check of ``apgd-t``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks import torchattacks_host
from rctk.attacks.attack import Kind
from rctk.attacks.torchattacks_apgd_ce import NORMS
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError


@dataclass(frozen=True, kw_only=True)
class TorchattacksAPGDTargeted:
    """``torchattacks.APGDT``; survivors come back unchanged. In l2 it runs image by image.

    Its l2 code moves a whole batch by the step size of the first image, so a batch there is one image.

    Attributes:
        steps: Gradient steps per target; always passed, because the package's own default is 10.
        targets: Wrong classes to try, at most.
    """

    name: ClassVar[str] = "torchattacks-apgd-t"
    kind: ClassVar[Kind] = "gradient"

    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        if min(self.steps, self.targets) < 1:
            raise OptionError(f"{self.name} needs steps and targets of at least 1, got {self.steps}, {self.targets}")

    @property
    def passes(self) -> int:
        """Forward and backward passes of all targets."""
        return 1 + self.targets * (2 * self.steps + 3)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the last misclassified iterate, or the image itself where there was none."""

        def build(package: Any, host: nn.Module, classes: int, seed: int) -> Any:
            if classes < 4:
                raise AttackError(f"{self.name} needs four or more classes, the model has {classes}; use apgd-t")
            count = min(self.targets + 1, classes)  # it tries one class fewer than it is told
            return package.APGDT(
                host, norm=NORMS[threat.norm], eps=threat.eps, steps=self.steps, seed=seed, n_classes=count
            )

        return torchattacks_host.run(build, model, x, y, generator, at_once=1 if threat.norm == "l2" else None)
