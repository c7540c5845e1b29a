"""``rctk train``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from cyclopts import Parameter
from torch import nn

from rctk.cli.flags import DataFlags, RecordFlags, Whole, read_spec
from rctk.cli.places import check_file, check_folder
from rctk.data import Split, read_split
from rctk.machine import machine_facts, versions
from rctk.model_io.checks import count_classes
from rctk.models import build_architecture
from rctk.records import Record
from rctk.train import Checkpoints, Epoch, TrainSettings, build_objective, draw_weights, train
from rctk_kernels.errors import DataError, OptionError

NO_RECORD_FLAGS = RecordFlags()


def train_(  # noqa: PLR0913  # every parameter is a flag
    *,
    arch: str,
    data: DataFlags,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    validation: str | None = None,
    objective: str = "train.standard",
    epochs: Whole = TrainSettings.epochs,
    batch_size: Whole = TrainSettings.batch_size,
    optimizer: Literal["sgd", "adamw"] = TrainSettings.optimizer,
    lr: float = TrainSettings.lr,
    schedule: Literal["cosine", "cyclic", "constant"] = TrainSettings.schedule,
    weight_decay: float = TrainSettings.weight_decay,
    augment: Literal["none", "crop", "crop-flip"] = TrainSettings.augment,
    mean: str | None = None,
    std: str | None = None,
    records: Path = NO_RECORD_FLAGS.out,
) -> None:
    """Train a small classifier, plainly or adversarially, to a checkpoint.

    The best epoch (by accuracy under PGD) is at --out and the last one beside it, both from the first epoch on.

    Example: rctk train --arch digits-cnn --data digits:train --objective train.pgd_at:eps=0.15 -o digits.pt

    Args:
        arch: Built-in architecture, such as digits-cnn; see `rctk list models`.
        data: Training images, such as digits:train.
        out: Checkpoint file.
        validation: Images that choose the best epoch; a tenth of the training images by default.
        objective: What is minimised, such as train.standard or train.pgd_at:eps=0.15.
        epochs: Passes over the training images.
        batch_size: Images in a step.
        optimizer: Optimizer.
        lr: Largest learning rate.
        schedule: How the learning rate moves; cyclic rises and falls once.
        weight_decay: Weight decay.
        augment: Random changes of the training images.
        mean: Normalisation mean per channel, in units of [0, 1].
        std: Normalisation standard deviation per channel.
        records: Folder whose records.jsonl the result is appended to.
    """
    if out.suffix == ".onnx":
        raise OptionError(f"--out {out} names an ONNX file; a checkpoint ends in .pt or .safetensors")
    check_file(out, "--out")
    check_folder(records, "--records")
    settings = TrainSettings(
        objective=build_objective(objective),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        augment=augment,
        seed=data.seed,
    )
    images, held, classes = _read(data, validation)
    spec = read_spec("x".join(str(n) for n in images.images.shape[1:]), mean, std)
    module = build_architecture(arch, classes=len(classes), input=spec)
    draw_weights(module, torch.Generator().manual_seed(data.seed))
    count_classes(module.eval(), spec, Path(f"--arch {arch}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    saver = Checkpoints(path=out, arch=arch, input=spec, classes=classes, then=_line(epochs))
    history = train(module, images, held, settings, input=spec, progress=saver)
    best = history.best
    print(
        f"best epoch {best.number}: clean {best.clean_accuracy:.1%}, under PGD {best.robust_accuracy:.1%}; saved {out}"
    )
    values = {"epochs": [asdict(epoch) for epoch in history.epochs], "samples": len(held)}
    own = {**asdict(settings), "arch": arch, "data": images.name, "validation": held.name}
    Record.of("train", {"name": out.name}, own, values, machine=machine_facts(), versions=versions()).append_to(records)


def _line(epochs: int) -> Callable[[Epoch, nn.Module], None]:
    def show(epoch: Epoch, _module: nn.Module) -> None:
        text = f"loss {epoch.loss:.3f}  clean {epoch.clean_accuracy:.1%}  under PGD {epoch.robust_accuracy:.1%}"
        best = "  best" if epoch.best else ""
        print(f"epoch {epoch.number}/{epochs}  {text}  {epoch.seconds:.1f} s{best}", file=sys.stderr)

    return show


def _read(data: DataFlags, validation: str | None) -> tuple[Split, Split, tuple[str, ...]]:
    """Return the training images, those to validate on (a tenth of them where none are named), and the classes."""
    split = read_split(data.data, samples=data.samples, seed=data.seed, download=data.download)
    classes = split.classes or tuple(str(i) for i in range(int(split.labels.max()) + 1))
    if len(classes) < 2:
        raise DataError(f"{split.name} has images of one class; training needs two")
    if validation:
        return split, read_split(validation), classes
    if len(split) < 2:
        raise DataError(f"{split.name} has one image; give more, or others to validate on with --validation")
    held = split.sample(max(1, len(split) // 10), data.seed)
    return split.take(np.flatnonzero(~np.isin(split.indices, held.indices))), held, classes
