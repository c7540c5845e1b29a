"""Crafts with a gradient attack, on a torch model that may stand for an engine."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rctk.attacks.attack import Attack, GradientAttack, Rows, TorchModule, require_norm
from rctk.attacks.gradients import classify, frozen
from rctk.data.split import Labels
from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.counting import Counted
from rctk.evaluation.crafting import Cost, Proposal, accept, attack_seed
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import AttackError


class WhiteBox:
    """Runs a gradient attack; see :class:`rctk.evaluation.crafting.Crafter`."""

    def __init__(
        self, attack: Attack, threat: ThreatModel, seed: int, counted: Counted, model: TorchModule | None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise AttackError(
                f"{attack.name} needs gradients and got no torch model; give the float model or the twin of the "
                "engine, or use a query attack such as square"
            )
        require_norm(attack, threat)
        self._attack = cast("GradientAttack", attack)
        self._threat = threat
        self._state = attack_seed(seed, attack)
        self._model = CountedModel(model, counted.batch_size)  # the model under test itself is not asked
        tensors = [*model.parameters(), *model.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")

    def craft(self, x: FloatNCHW, y: Labels, rows: Rows, *, push: bool = False) -> Proposal:
        """Attack ``x`` on the torch model; with ``push``, without stopping at the first success."""
        del rows
        images, labels = torch.from_numpy(x).to(self._device), torch.from_numpy(y).to(self._device)
        generator = torch.Generator().manual_seed(self._state)
        attack = _without_stop(self._attack) if push else self._attack
        with frozen(self._model):
            raw = attack(self._model, images, labels, self._threat, generator)
            stopped = self._fooled(raw, labels) if _stops(attack) else np.zeros(len(x), dtype=np.bool_)
        accepted, replaced = accept(raw.detach().cpu().numpy().astype(np.float32, copy=False), x, self._threat)
        return Proposal(images=accepted, stopped=stopped, replaced=replaced)

    @property
    def cost(self) -> Cost:
        """Passes through the torch model."""
        return Cost(self._model.forward_images, self._model.backward_images, self._model.zero_gradients)

    def _fooled(self, images: Tensor, labels: Tensor) -> npt.NDArray[np.bool_]:
        wrong = classify(self._model, images).argmax(dim=1) != labels
        return wrong.cpu().numpy().astype(np.bool_)


def _stops(attack: GradientAttack) -> bool:
    return bool(getattr(attack, "stop_at_success", False))


def _without_stop(attack: GradientAttack) -> GradientAttack:
    if not _stops(attack):
        return attack
    return cast("GradientAttack", dataclasses.replace(cast("Any", attack), stop_at_success=False))
