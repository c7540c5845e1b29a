"""Gradient searches on two torch models whose every few iterates are tried on what is really deployed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rctk.attacks.attack import Kind, Rows
from rctk.attacks.beside import Beside
from rctk.attacks.gradients import frozen, look
from rctk.attacks.losses import cross_entropy
from rctk.attacks.walk import Driver, Gap, Walk
from rctk.data.split import Labels
from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.crafting import Cost
from rctk.evaluation.judge import Flags
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PlainPgd:
    """Projected gradient descent on the model alone, from the original image: what a search of differences must beat.

    Attributes:
        steps: Gradient steps.
        step_size: Length of one step as a share of ``eps``.
    """

    name: ClassVar[str] = "pgd"
    kind: ClassVar[Kind] = "gradient"

    steps: int = 20
    step_size: float = 0.125

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"pgd:steps must be at least 1, got {self.steps}")

    def see(self, model: nn.Module, reference: nn.Module, x: Tensor, y: Tensor) -> Gap:
        """Return the cross-entropy of the model; the reference is not asked."""
        del reference
        seen = look(model, x, y, y, cross_entropy, until_broken=False)
        return Gap(score=seen.loss, evasive=torch.zeros_like(seen.broken), gradient=seen.gradient)

    def stride(self, step: int) -> float:
        """Return the same length for every step."""
        del step
        return self.step_size


class Guided:
    """Runs a search on a model and its reference.

    Args:
        driver: What climbs.
        pair: The differentiable models.
        batch_size: Most images in one pass.
    """

    def __init__(self, driver: Driver, pair: Beside, batch_size: int) -> None:
        self._driver, self._model = driver, CountedModel(pair, batch_size)
        tensors = [*pair.parameters(), *pair.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")

    @property
    def cost(self) -> Cost:
        """Passes through both models."""
        return Cost(self._model.forward_images, self._model.backward_images, self._model.zero_gradients)

    def search(
        self,
        x: FloatNCHW,
        y: Labels,
        threat: ThreatModel,
        replay: Callable[[FloatNCHW, Rows], Flags],
        *,
        every: int,
    ) -> None:
        """Walk and hand every ``every``-th iterate, and the last, to ``replay``, which says who is done."""
        driver, walk = self._driver, Walk(torch.from_numpy(x).to(self._device), self._labels(y), threat)
        with frozen(self._model):
            while len(walk.rows) and walk.taken < driver.steps:
                seen = driver.see(self._model, self._model.reference, walk.adv, walk.y)
                walk.move(seen.gradient, driver.stride(walk.taken))
                if walk.taken % every == 0 or walk.taken == driver.steps:
                    done = replay(walk.adv.cpu().numpy(), walk.rows.cpu().numpy())
                    walk.keep(torch.from_numpy(np.asarray(~done)).to(self._device))

    def _labels(self, y: Labels) -> Tensor:
        return torch.from_numpy(y).to(self._device)
