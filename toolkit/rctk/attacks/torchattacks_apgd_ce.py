"""Auto-PGD on the cross-entropy as torchattacks runs it: a cross-check of ``apgd-ce``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks import torchattacks_host
from rctk.attacks.attack import Kind
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

NORMS = {"linf": "Linf", "l2": "L2"}
"""What torchattacks calls the norms."""


@dataclass(frozen=True, kw_only=True)
class TorchattacksAPGDCrossEntropy:
    """``torchattacks.APGD`` with the cross-entropy; survivors come back unchanged.

    Attributes:
        steps: Gradient steps per restart; always passed, because the package's own default is 10.
        restarts: Random starts.
    """

    name: ClassVar[str] = "torchattacks-apgd-ce"
    kind: ClassVar[Kind] = "gradient"

    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1:
            raise OptionError(f"{self.name} needs steps and restarts of at least 1, got {self.steps}, {self.restarts}")

    @property
    def passes(self) -> int:
        """Forward and backward passes of all restarts."""
        return 1 + 2 * self.restarts * (self.steps + 1)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the last misclassified iterate, or the image itself where there was none."""

        def build(package: Any, host: nn.Module, _classes: int, seed: int) -> Any:
            return package.APGD(
                host,
                norm=NORMS[threat.norm],
                eps=threat.eps,
                steps=self.steps,
                n_restarts=self.restarts,
                seed=seed,
                loss="ce",
            )

        return torchattacks_host.run(build, model, x, y, generator)
