"""PGD as torchattacks runs it: a cross-check of ``pgd``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rctk.attacks import torchattacks_host
from rctk.attacks.attack import Kind
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class TorchattacksPGD:
    """``torchattacks.PGD`` and, in l2, ``PGDL2``; returns the last iterate.

    Attributes:
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``; ``none`` for 2.5 / ``steps``.
    """

    name: ClassVar[str] = "torchattacks-pgd"
    kind: ClassVar[Kind] = "gradient"

    steps: int = 40
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"torchattacks-pgd:steps must be at least 1, got {self.steps}")
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise OptionError(f"torchattacks-pgd:step_size is a positive share of eps, got {self.step_size}")

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.steps

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Return the last iterate of every image."""
        alpha = threat.eps * (2.5 / self.steps if self.step_size is None else self.step_size)

        def build(package: Any, host: nn.Module, _classes: int, _seed: int) -> Any:
            method = package.PGD if threat.norm == "linf" else package.PGDL2
            return method(host, eps=threat.eps, alpha=alpha, steps=self.steps, random_start=True)

        return torchattacks_host.run(build, model, x, y, generator)
