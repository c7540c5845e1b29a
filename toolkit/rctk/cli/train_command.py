"""``rctk train``."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import nn

from rctk.cli.console import Bars
from rctk.cli.flags import DataFlags, RecordFlags, Switch, read_spec
from rctk.cli.next_step import next_export
from rctk.cli.places import check_checkpoint, check_file, check_folder
from rctk.cli.stop import Stop
from rctk.cli.train_flags import NO_TRAIN_FLAGS, TrainFlags
from rctk.compress.images import LearningImages, hold_out
from rctk.data import Split, read_split
from rctk.data.leaks import tell_learning
from rctk.data.read import need_split
from rctk.machine import machine_facts, versions
from rctk.model_io.checks import count_classes
from rctk.models import build_architecture
from rctk.progress import Progress, Silent
from rctk.records import Record
from rctk.train import Checkpoints, Epoch, History, ResumeFile, TrainSettings, draw_weights, train
from rctk.train.checkpoints import last_path
from rctk_kernels.errors import DataError, RctkError

NO_RECORD_FLAGS = RecordFlags()
MOST_CLASSES = 100_000
"""A larger label names something else than a class, and would make a huge last layer."""


def train_(  # noqa: PLR0913  # every parameter is a flag
    *,
    arch: str,
    data: DataFlags,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    validation: str | None = None,
    flags: TrainFlags = NO_TRAIN_FLAGS,
    resume: Switch = False,
    mean: str | None = None,
    std: str | None = None,
    records: Path = NO_RECORD_FLAGS.out,
) -> None:
    """Train a classifier, plainly or adversarially, to a checkpoint.

    The best epoch is at --out and the last one beside it, both from the first epoch on. Best is the most accurate under
    PGD on the validation images, or on clean ones where nothing attacks. A run that was stopped goes on after its last
    epoch with --resume, and ends with the same bits.

    Example: rctk train --arch digits-cnn --data digits:train --objective train.pgd_at:eps=0.15 -o digits.pt

    Args:
        arch: Built-in name such as digits-cnn (see `rctk list models`), torchvision:NAME, timm:NAME, FILE.py:FACTORY.
        data: Training images, such as digits:train.
        out: Checkpoint file, .pt or .safetensors; one that is there is replaced after the first epoch.
        validation: Images that choose the best epoch; a tenth of the training images by default.
        flags: How to train.
        resume: Go on with the run that was stopped; all other flags as they were.
        mean: Normalisation mean per channel, in units of [0, 1].
        std: Normalisation standard deviation per channel.
        records: Folder whose records.jsonl the result is appended to.
    """
    settings = flags.settings(data.seed)
    state = ResumeFile.beside(out, go_on=resume)
    _check_places(out, state.path, records)
    bars = Bars() if _is_first() else Silent()
    images, held, classes = _read(data, validation, bars)
    spec = read_spec("x".join(str(n) for n in images.images.shape[1:]), mean, std)
    module = build_architecture(arch, classes=len(classes), input=spec)
    draw_weights(module, torch.Generator().manual_seed(data.seed))
    count_classes(module.eval(), spec, Path(f"--arch {arch}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    done = list[int]()

    def line(epoch: Epoch, _module: nn.Module) -> None:
        done.append(epoch.number)
        print(f"epoch {epoch.number}/{settings.epochs}  {epoch}", file=sys.stderr)
        _heed_a_signal()

    saver = Checkpoints(path=out, arch=arch, input=spec, classes=classes, then=line)
    if state.path.exists() and not resume:
        bars.note(f"{state.path} of a stopped run is replaced after the first epoch; --resume would go on with it")
    with _way_back(state.path, done), _one_voice():
        history = train(module, images, held, settings, input=spec, progress=saver, bars=bars, resume=state)
    if history.rank == 0:
        own = {**_plain(settings), "arch": arch, "data": images.name, "validation": held.name}
        _tell(history, own, saver, held, records)


def _check_places(out: Path, state: Path, records: Path) -> None:
    """Refuse places that cannot be written, before an epoch is spent on it."""
    check_checkpoint(out, "--out")
    for path in (last_path(out), state):
        check_file(path, "--out")
    check_folder(records, "--records")


def _tell(history: History, own: dict[str, object], saver: Checkpoints, held: Split, records: Path) -> None:
    best = history.best
    robust = f", under PGD {best.robust_accuracy:.1%}" if best.eps else ""
    kept = f"saved {saver.path}, the last epoch in {saver.last_path}"
    print(f"best epoch {best.number}: clean {best.clean_accuracy:.1%}{robust}, {len(held)} of {held.name}; {kept}")
    print(next_export(saver.path, saver.arch, str(own["data"])))
    values = {"epochs": [asdict(epoch) for epoch in history.epochs], "samples": len(held), "stopped": history.stopped}
    Record.of("train", {"name": saver.path.name}, own, values, machine=machine_facts(), versions=versions()).append_to(
        records
    )


def _heed_a_signal() -> None:
    """End the run where a signal came and a library swallowed the exception, as C extensions do now and then."""
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    if any(isinstance(handler, Stop) and handler.number for handler in handlers):
        raise KeyboardInterrupt


def _is_first() -> bool:
    """Tell whether this is the process that speaks, where several train."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def _one_voice() -> Iterator[None]:
    """Where several processes train, let only the first say why the run ended."""
    try:
        yield
    except (KeyboardInterrupt, RctkError):
        if not _is_first():
            sys.stderr = io.StringIO()
        raise


@contextmanager
def _way_back(path: Path, done: list[int]) -> Iterator[None]:
    """Say how to go on where the user stops the run."""
    try:
        yield
    except KeyboardInterrupt:
        kept = path.exists()
        none = "its checkpoint is there, the state to go on from is not yet" if done else "no epoch is finished"
        text = "the same command with --resume goes on after the last finished epoch" if kept else none
        print(f"stopped after epoch {done[-1]}; {text}" if done else f"stopped; {text}", file=sys.stderr)
        raise


def _plain(settings: TrainSettings) -> dict[str, object]:
    """Return all settings for the record; the objective also says which it is."""
    values = asdict(settings)
    return {**values, "objective": {"name": type(settings.objective).__name__, **values["objective"]}}


def _read(data: DataFlags, validation: str | None, progress: Progress) -> tuple[Split, Split, tuple[str, ...]]:
    """Return the training images, those to validate on (a tenth of them where none are named), and the classes."""
    need_split(data.data, "--data")
    split = read_split(data.data, samples=data.samples, seed=data.seed, download=data.download)
    highest = int(split.labels.max())
    if highest >= MOST_CLASSES:
        raise DataError(f"{split.name} has label {highest}, which is no class number; count classes from 0")
    classes = split.classes or tuple(str(i) for i in range(highest + 1))
    if len(classes) < 2:
        raise DataError(f"{split.name} has images of one class; training needs two")
    held = read_split(validation) if validation else None
    tell_learning(split, held, progress)
    images = hold_out(split, data.seed) if held is None else LearningImages(split, held)
    return images.train, images.validation, classes
