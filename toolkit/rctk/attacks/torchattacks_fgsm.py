"""FGSM as torchattacks runs it: a cross-check of ``fgsm``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks import torchattacks_host
from rctk.attacks.attack import Kind
from rctk.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class TorchattacksFGSM:
    """``torchattacks.FGSM``, linf."""

    name: ClassVar[str] = "torchattacks-fgsm"
    kind: ClassVar[Kind] = "gradient"

    @property
    def passes(self) -> int:
        """One forward, one backward."""
        return 2

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return ``x`` moved by ``eps`` along the sign of the gradient."""
        torchattacks_host.linf_only(threat, self.name)
        return torchattacks_host.run(
            lambda package, host, _classes, _seed: package.FGSM(host, eps=threat.eps), model, x, y, generator
        )
