"""Averages of the weights along a run.

An average over steps forgets exponentially (EMA). An average over the last epochs (SWA) weighs them equally and takes
its BatchNorm statistics from one more pass over the training images. Izmailov et al., "Averaging Weights Leads to Wider
Optima and Better Generalization", UAI 2018. https://arxiv.org/abs/1803.05407
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from rctk.train.normalised import Normalised
from rctk.train.settings import LoopSettings


class WeightAverage:
    """The model that is validated and saved: an average, or the trained one itself.

    Args:
        model: The trained one, where it is trained.
        settings: What to average.
    """

    def __init__(self, model: Normalised, settings: LoopSettings) -> None:
        self._model = model
        self._settings = settings
        self._average: AveragedModel | None = None
        if settings.averaging == "ema":
            self._average = AveragedModel(model, multi_avg_fn=self._forget, use_buffers=True)
        elif settings.averaging == "swa":
            self._average = AveragedModel(model)

    @property
    def model(self) -> Normalised:
        """The model as it would be saved now."""
        if self._average is None or not int(self._average.n_averaged):
            return self._model
        return cast("Normalised", self._average.module)

    def after_step(self) -> None:
        """Take in the weights after a step of the optimizer."""
        if self._average is not None and self._settings.averaging == "ema":
            self._average.update_parameters(self._model)

    def after_epoch(self, number: int, images: Iterable[Tensor]) -> None:
        """Take in the weights after epoch ``number``; ``images`` are batches of all training images."""
        start = self._settings.swa_start * self._settings.epochs
        if self._average is not None and self._settings.averaging == "swa" and number > start:
            self._average.update_parameters(self._model)
            update_bn(images, self._average)

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an average that was saved."""
        if self._average is not None:
            self._average.load_state_dict(state)

    def _forget(self, averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        """Move averages towards the current values; early steps move them more, since little lies behind them."""
        share = 1 - min(self._settings.ema_decay, (1 + float(count)) / (10 + float(count)))
        for average, value in zip(averages, current, strict=True):
            if torch.is_floating_point(average):
                average.lerp_(value.to(average), share)
            else:
                average.copy_(value)  # BatchNorm counts its batches


class Zeros:
    """Weights that are zero now and shall stay zero: a pruned model is trained without growing back.

    Args:
        module: Its convolutions and matrices are looked at; biases and scales are zero by chance.
    """

    def __init__(self, module: nn.Module) -> None:
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        self._masks = [(weight, weight.detach() == 0) for weight in weights if bool((weight == 0).any())]

    def put_back(self) -> None:
        """Make them zero again."""
        with torch.no_grad():
            for weight, zero in self._masks:
                weight.masked_fill_(zero, 0)
