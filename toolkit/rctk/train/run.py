"""One training run: everything that changes from step to step."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.train.averaging import WeightAverage, Zeros
from rctk.train.batches import Share, lay_out, seed_of, steps_of
from rctk.train.inner import modes_kept
from rctk.train.normalised import Normalised
from rctk.train.objective import Guarded
from rctk.train.one_step import OneStep
from rctk.train.schedule import lr_share
from rctk.train.settings import Epoch, History, TrainSettings
from rctk.train.validate import BATCH, add_up, validate
from rctk_kernels.errors import ModelError

ORDER, DRAWS, GLOBAL, WATCH = range(4)
"""What a generator is for."""


class Run:
    """Trains epoch by epoch.

    Attributes:
        fabric: Devices and precision.
        epochs: Finished ones.
        stopped: Why the run ended early; empty where it did not.
    """

    def __init__(
        self, fabric: Fabric, model: Normalised, train_split: Split, validation_split: Split, settings: TrainSettings
    ) -> None:
        self.fabric = fabric
        self.epochs: list[Epoch] = []
        self.stopped = ""
        self._settings = settings
        self._split, self._validation = train_split, validation_split
        self._model = model
        self._augmentations = settings.augmentations
        lay_out(model, channels_last=settings.channels_last)
        self._step = OneStep(model, settings.objective)
        optimizer = _optimizer(model, settings)
        self._forward, self._optimizer = fabric.setup(self._step, optimizer)
        self._average = WeightAverage(model, settings)
        self._zeros = Zeros(model) if settings.keep_zeros else None
        self._share = Share(
            rank=fabric.global_rank,
            ranks=fabric.world_size,
            device=fabric.device,
            channels_last=settings.channels_last,
        )
        self._best_weights: dict[str, Tensor] = {}
        self._watched: float | None = None

    @property
    def shipped(self) -> nn.Module:
        """The module that is validated and saved: trained weights or their average."""
        return self._average.model.module

    @property
    def images_in_all(self) -> int:
        """Images of all epochs."""
        return self._settings.epochs * len(self._split)

    @property
    def images_done(self) -> int:
        """Images of finished epochs."""
        return len(self.epochs) * len(self._split)

    def remaining(self, step: Callable[[int], None]) -> Iterator[Epoch]:
        """Train and validate what is left, and yield each epoch as it is finished.

        Args:
            step: Told how many more images went through.
        """
        for number in range(len(self.epochs) + 1, self._settings.epochs + 1):
            start = time.perf_counter()
            guarded = isinstance(self._settings.objective, Guarded)
            before = deepcopy((self._model.state_dict(), self._average.state_dict())) if guarded else None
            loss = self.train_epoch(number, step)
            if before and self._collapsed(number):
                self._model.load_state_dict(before[0])
                self._average.load_state_dict(before[1])
                return
            whole = replace(self._share, rank=0, ranks=1)
            self._average.after_epoch(number, (x for x, _ in whole.in_order(self._split, BATCH)))
            self._take_buffers_of_the_first()
            clean, robust = validate(self.fabric, self._average.model, self._validation, self._settings, self._share)
            record = max(((epoch.robust_accuracy, epoch.clean_accuracy) for epoch in self.epochs), default=(-1.0, -1.0))
            epoch = Epoch(
                number=number,
                loss=loss,
                clean_accuracy=clean,
                robust_accuracy=robust,
                best=(robust, clean) > record,
                seconds=time.perf_counter() - start,
                eps=self._settings.attack_eps,
            )
            self.epochs.append(epoch)
            if epoch.best:
                self._best_weights = _copy(self.shipped)
            yield epoch
            if self._tired():
                return

    def _take_buffers_of_the_first(self) -> None:
        """Give every process the running statistics of the first, which are saved; each has met its own images."""
        if self.fabric.world_size > 1:
            models = dict.fromkeys((self._model, self._average.model))
            for buffer in (buffer for model in models for buffer in model.buffers()):
                torch.distributed.broadcast(buffer, src=0)

    def train_epoch(self, number: int, progress: Callable[[int], None]) -> float:
        """Take the steps of epoch ``number``; return the mean loss."""
        settings, share = self._settings, self._share
        steps = steps_of(self._split, settings.batch_size)
        draws = self._generator(DRAWS, number, share.rank)
        self._step.generator = draws
        _seed_globally(share.device, seed_of(settings.seed, GLOBAL, number, share.rank))
        self._model.train()
        total = torch.zeros((), device=share.device)
        for i, (images, labels) in enumerate(
            share.shuffled(self._split, settings.batch_size, seed_of(settings.seed, ORDER, number))
        ):
            done = ((number - 1) * steps + i + 0.5) / (settings.epochs * steps)
            for group in self._optimizer.param_groups:
                group["lr"] = settings.lr * lr_share(settings.schedule, done, settings.milestones)
            x, y = self._augmented(images, labels, draws)
            for _ in range(self._step.replays):
                loss = self._descend(x, y, number)
            total += loss * len(x)
            progress(len(x) * share.ranks)
        return float(add_up(self.fabric, total)) / len(self._split)

    def _descend(self, x: Tensor, y: Tensor, number: int) -> Tensor:
        """Take one step of the optimizer; return the loss."""
        loss: Tensor = self._forward(x, y)
        value = loss.detach()
        everywhere = float(add_up(self.fabric, value.clone()))  # all processes stop, or none
        if not math.isfinite(everywhere):
            raise ModelError(
                f"training diverged in epoch {number} (loss {everywhere}); lower lr (now {self._settings.lr:g}); "
                "what earlier epochs saved is there"
            )
        self._optimizer.zero_grad()
        self.fabric.backward(loss)
        self._optimizer.step()
        if self._zeros:
            self._zeros.put_back()
        self._average.after_step()
        return value

    def _augmented(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        if any(augmentation.mixes for augmentation in self._augmentations):
            y = F.one_hot(y, self._classes).to(x.dtype)
        for augmentation in self._augmentations:
            x, y = augmentation(x, y, draws)
        return self._share.laid_out(x), y

    @property
    def _classes(self) -> int:
        """Outputs of the model, found out once."""
        if not hasattr(self, "_outputs"):
            with modes_kept(self._model), torch.no_grad():
                self._model.eval()
                self._outputs = int(self._model(self._share.put(self._split, torch.arange(1))[0]).shape[1])
        return self._outputs

    def _collapsed(self, number: int) -> bool:
        """Tell whether the watched accuracy fell too far in this epoch."""
        objective = self._settings.objective
        if not isinstance(objective, Guarded):
            return False
        few = self._split.sample(self._settings.batch_size, self._settings.seed)
        x, y = self._share.put(few, torch.arange(len(few)))
        with modes_kept(self._model), self.fabric.autocast():
            self._model.eval()
            now = self.fabric.broadcast(objective.watched(self._model, x, y, self._generator(WATCH)))
        last, self._watched = self._watched, now
        if last is None or last - now <= objective.max_drop:
            return False
        self._watched = last
        self.stopped = (
            f"stopped in epoch {number}: accuracy under PGD on training images fell from {last:.1%} to {now:.1%} "
            f"(catastrophic overfitting); weights are those of epoch {number - 1}; lower lr or eps, or use train.pgd_at"
        )
        return True

    def _tired(self) -> bool:
        """Tell whether patience is at its end."""
        patience, last = self._settings.patience, len(self.epochs)
        best = max(epoch.number for epoch in self.epochs if epoch.best)
        if patience is None or last - best < patience or last == self._settings.epochs:
            return False
        self.stopped = f"stopped after epoch {last}: none was better than epoch {best} for {patience}"
        return True

    def history(self) -> History:
        """Return what happened so far."""
        return History(
            epochs=tuple(self.epochs),
            best_weights=self._best_weights,
            last_weights=_copy(self.shipped),
            stopped=self.stopped,
            rank=self.fabric.global_rank,
        )

    def let_go(self) -> None:
        """Drop what refers to the group of processes: where it outlives the group, its end can wait for itself."""
        del self._forward
        gc.collect()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs to go on; every process has to call it."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "average": self._average.state_dict(),
            "carried": self._gathered(),
            "watched": self._watched,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": self._best_weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state after an epoch."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self._average.load_state_dict(state["average"])
        own = state["carried"][self.fabric.global_rank]
        self._step.carried = {key: value.to(self._share.device) for key, value in own.items()}
        self._watched = state["watched"]
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self._best_weights = dict(state["best"])

    def _gathered(self) -> list[dict[str, Tensor]]:
        """Return what every process carries from step to step."""
        own = {key: value.cpu() for key, value in self._step.carried.items()}
        if self.fabric.world_size == 1:
            return [own]
        everyone: list[dict[str, Tensor]] = [{} for _ in range(self.fabric.world_size)]
        torch.distributed.all_gather_object(everyone, own)
        return everyone

    def _generator(self, *purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self._settings.seed, *purpose))


def _seed_globally(device: torch.device, seed: int) -> None:
    """Seed torch's global generators, as dropout takes no other; the caller gives them back."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
