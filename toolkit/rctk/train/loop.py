"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.train.augment import crop, flip
from rctk.train.inner import InnerPgd, modes_kept
from rctk.train.normalised import Normalised
from rctk.train.schedule import lr_share
from rctk.train.settings import Epoch, History, TrainSettings
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError, ModelError

VALIDATION_BATCH = 512
VALIDATION_STEP = 0.25
"""Length of a step of the validating attack as a share of its budget."""


def train(
    module: nn.Module,
    train_split: Split,
    validation_split: Split,
    settings: TrainSettings,
    *,
    input: InputSpec,  # noqa: A002  the flag is --input
    progress: Callable[[Epoch, nn.Module], None],
) -> History:
    """Train ``module`` in place and leave it with the weights of its most robust epoch, in evaluation mode.

    Everything random comes from ``settings.seed``; the same seed, thread count and machine give the same weights.
    Afterwards torch's global generator is as it was.

    Args:
        module: Maps normalised images to logits; trained on the device where its parameters are.
        train_split: Images to learn from.
        validation_split: Images that choose the best epoch; not the test set.
        settings: All settings.
        input: Normalisation that is put in front of the module while it is trained.
        progress: Called after each epoch with the module as it is then; :class:`rctk.train.Checkpoints` saves it.
    """
    device = next(module.parameters()).device
    model = Normalised(module, input).to(device)
    for split in (train_split, validation_split):
        _check(split, model, input)
    best_weights: dict[str, Tensor] = {}
    epochs: list[Epoch] = []
    with _global_generator_kept(device, settings.seed):
        for epoch in _epochs(model, train_split, validation_split, settings):
            epochs.append(epoch)
            if epoch.best:
                best_weights = _copy(module)
            progress(epoch, module)
    last_weights = _copy(module)
    module.zero_grad()
    module.load_state_dict(best_weights)
    module.eval()
    return History(epochs=tuple(epochs), best_weights=best_weights, last_weights=last_weights)


@contextmanager
def _global_generator_kept(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generator for the block only: dropout takes no other."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def _epochs(model: Normalised, train_split: Split, validation_split: Split, settings: TrainSettings) -> Iterator[Epoch]:
    """Train and validate epoch by epoch; yield each as it is finished."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = _optimizer(model, settings)
    record = (-1.0, -1.0)
    for number in range(1, settings.epochs + 1):
        start = time.perf_counter()
        model.train()
        loss = _run_epoch(model, optimizer, train_split, settings, number, generator)
        clean, robust = _validate(model, validation_split, settings)
        best, record = (robust, clean) > record, max(record, (robust, clean))
        yield Epoch(
            number=number,
            loss=loss,
            clean_accuracy=clean,
            robust_accuracy=robust,
            best=best,
            seconds=time.perf_counter() - start,
        )


def _run_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    settings: TrainSettings,
    number: int,
    generator: torch.Generator,
) -> float:
    """Take one step per batch of epoch ``number``; return the mean loss."""
    total = 0.0
    steps = math.ceil(len(split) / settings.batch_size)
    for step, (x, y) in enumerate(_shuffled(split, settings.batch_size, generator, _device(model))):
        for group in optimizer.param_groups:
            done = ((number - 1) * steps + step + 0.5) / (settings.epochs * steps)
            group["lr"] = settings.lr * lr_share(settings.schedule, done)
        loss = settings.objective(model, _augmented(x, settings, generator), y, generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"training diverged in epoch {number} (loss {value}); lower lr (now {settings.lr:g}); what earlier "
                "epochs saved is there"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += value * len(y)
    return total / len(split)


def _shuffled(
    split: Split, size: int, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images in random order, in batches of at most ``size`` whose sizes differ by at most one."""
    order = torch.randperm(len(split), generator=generator)
    for rows in order.tensor_split(math.ceil(len(split) / size)):
        x, y = split.images[rows.numpy()], split.labels[rows.numpy()]
        yield torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)


def _augmented(x: Tensor, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    if settings.augment == "none":
        return x
    x = crop(x, generator, padding=settings.crop_padding)
    return flip(x, generator) if settings.augment == "crop-flip" else x


def _validate(model: nn.Module, split: Split, settings: TrainSettings) -> tuple[float, float]:
    """Return clean accuracy and accuracy under PGD, with the same random start after every epoch."""
    eps = settings.objective.eps if settings.validation_eps is None else settings.validation_eps
    attack = InnerPgd(eps=eps, steps=settings.validation_steps, step_size=VALIDATION_STEP)
    generator = torch.Generator().manual_seed(settings.seed)
    device = _device(model)
    clean = robust = 0
    with modes_kept(model):
        model.eval()
        for images, labels in split.batches(VALIDATION_BATCH):
            x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
            right = _correct(model, x, y)
            clean += int(right.sum())
            if eps > 0:
                right &= _correct(model, attack(model, x, y, generator), y)
            robust += int(right.sum())
    return clean / len(split), robust / len(split)


def _correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(dim=1) == y  # type: ignore[no-any-return]


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}


def _check(split: Split, model: nn.Module, spec: InputSpec) -> None:
    """Refuse data that the module cannot take, before an epoch is spent on it."""
    if not len(split):
        raise DataError(f"{split.name} is empty; training needs images")
    if split.images.shape[1:] != spec.shape:
        raise DataError(f"{split.name} has images {split.images.shape[1:]}, the model takes {spec.shape}; see --input")
    with modes_kept(model), torch.no_grad():
        model.eval()
        count = model(torch.from_numpy(split.images[:1]).to(_device(model))).shape[1]
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= count:
        raise DataError(f"{split.name} has labels {low} to {high}, the model has {count} outputs; use its classes")
