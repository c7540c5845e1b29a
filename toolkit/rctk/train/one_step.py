"""Model and objective as one module, so that several devices see one forward pass per step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rctk.train.objective import Objective, Replaying


class OneStep(nn.Module):
    """Maps a batch to its loss.

    Objectives call the model many times in a step, to attack it among others. A strategy such as DDP wraps this module
    and not the model: it prepares its exchange of gradients once per forward pass.

    Attributes:
        generator: Random numbers of the objective, on the CPU; new in every epoch.
        carried: Tensors that an objective takes from step to step.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.generator = torch.Generator()
        self.carried: dict[str, Tensor] = {}
        self._objective = objective

    @property
    def replays(self) -> int:
        """Steps on each batch."""
        return self._objective.replays if isinstance(self._objective, Replaying) else 1

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        if isinstance(self._objective, Replaying):
            return self._objective.replay(self.model, x, y, self.carried)
        return self._objective(self.model, x, y, self.generator)
