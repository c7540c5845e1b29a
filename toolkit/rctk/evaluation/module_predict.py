"""A torch model as the ``predict`` that the judge asks."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from rctk.attacks.gradients import frozen
from rctk_export.input_spec import FloatNCHW, FloatNK


class ModulePredict:
    """Classifies host arrays with a torch model in inference mode, on the device of its weights."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return logits ``(N, K)``."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        with frozen(self._model), torch.no_grad():
            return cast("FloatNK", self._model(torch.from_numpy(images).to(device)).float().cpu().numpy())
