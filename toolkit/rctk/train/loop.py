"""The training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
import torch.distributed
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.progress import Progress, Silent
from rctk.train.batches import lay_out, steps_of
from rctk.train.hardware import make_fabric
from rctk.train.inner import modes_kept
from rctk.train.normalised import Normalised
from rctk.train.resume import ResumeFile
from rctk.train.run import Run
from rctk.train.settings import Epoch, History, TrainSettings
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError, ModelError, OptionError


def train(  # noqa: PLR0913  # what is trained, on what, how, and who looks on
    module: nn.Module,
    train_split: Split,
    validation_split: Split,
    settings: TrainSettings,
    *,
    input: InputSpec,  # noqa: A002  the flag is --input
    progress: Callable[[Epoch, nn.Module], None],
    bars: Progress | None = None,
    resume: ResumeFile | None = None,
) -> History:
    """Train ``module`` in place and leave it with the weights of its most robust epoch, in evaluation mode.

    Everything random comes from ``settings.seed``; the same seed, precision, thread count and machine give the same
    weights, also after any number of resumptions. Afterwards torch's global generator is as it was, and the module is
    on the device where it was.

    Args:
        module: Maps normalised images to logits.
        train_split: Images to learn from.
        validation_split: Images that choose the best epoch; not the test set.
        settings: All settings.
        input: Normalisation that is put in front of the module while it is trained.
        progress: Called after each epoch with the module as it is then; :class:`rctk.train.Checkpoints` saves it.
        bars: Shows how far the run is.
        resume: Where the state after each epoch is kept, and whether to go on from it.
    """
    settings = settings.resolved()
    home = next(module.parameters()).device
    model = Normalised(module, input).to(home)
    for split in (train_split, validation_split):
        _check(split, model, input)
    if steps_of(train_split, settings.batch_size) * settings.devices > len(train_split):
        raise OptionError(f"{settings.devices} devices share batches of {settings.batch_size} images; give larger ones")
    key = _key(module, input, train_split, validation_split, settings)
    state = resume.load(key) if resume else None
    alone = not torch.distributed.is_initialized()
    fabric = make_fabric(settings)  # starts all other processes: what the user can mend was said once before
    run = Run(fabric, model, train_split, validation_split, settings)
    if state is not None:
        run.load_state_dict(state)
        del state
    try:
        with _global_generator_kept(fabric.device):
            _go(run, key, resume, progress, bars or Silent())
    except RuntimeError as error:
        if "by peer" not in str(error):  # gloo's words
            raise
        raise ModelError(
            "another process of this training run ended early; what earlier epochs saved is there, the same command "
            "with --resume goes on after them"
        ) from error
    finally:
        lay_out(module.to(home), channels_last=False)
    history = run.history()
    if alone and torch.distributed.is_initialized():
        run.let_go()
        torch.distributed.destroy_process_group()
    module.zero_grad()
    module.load_state_dict(history.best_weights)
    module.eval()
    return history


def _go(
    run: Run,
    key: dict[str, str],
    resume: ResumeFile | None,
    progress: Callable[[Epoch, nn.Module], None],
    bars: Progress,
) -> None:
    """Run all epochs that are left; the first process reports and saves."""
    first = run.fabric.is_global_zero
    if first and run.epochs:
        bars.note(f"going on after epoch {len(run.epochs)}")
    with (bars if first else Silent()).stage("training", run.images_in_all) as step:
        step(run.images_done)
        for epoch in run.remaining(step):
            state = run.state_dict()  # all processes take part
            if first:
                progress(epoch, run.shipped)
                if resume:
                    resume.save(key, state)
    if first and run.stopped:
        bars.note(run.stopped)
    if first and resume:
        resume.remove()


@contextmanager
def _global_generator_kept(device: torch.device) -> Iterator[None]:
    """Let the block seed torch's global generator, which dropout draws from; give it back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _key(
    module: nn.Module, spec: InputSpec, train_split: Split, validation_split: Split, settings: TrainSettings
) -> dict[str, str]:
    """Return what must be equal for one run to go on from the state of another."""
    values = module.state_dict()
    mean, std = (",".join(map(str, each.flatten().tolist())) for each in spec.mean_std())
    sizes = [value.numel() for value in values.values()]
    shapes = hashlib.sha256(repr([(name, tuple(value.shape)) for name, value in values.items()]).encode()).hexdigest()
    return {
        **{field.name: str(getattr(settings, field.name)) for field in fields(settings)},
        "training images": train_split.fingerprint[:16],
        "validation images": validation_split.fingerprint[:16],
        "input": f"{'x'.join(map(str, spec.shape))} with mean {mean} and std {std}",
        "layers": f"{type(module).__name__} with {sum(sizes)} values in {len(sizes)} tensors, {shapes[:8]}",
    }


def _check(split: Split, model: nn.Module, spec: InputSpec) -> None:
    """Refuse data that the module cannot take, before an epoch is spent on it."""
    if not len(split):
        raise DataError(f"{split.name} is empty; training needs images")
    if split.images.shape[1:] != spec.shape:
        raise DataError(f"{split.name} has images {split.images.shape[1:]}, the model takes {spec.shape}; see --input")
    device = next(model.parameters()).device
    with modes_kept(model), torch.no_grad():
        model.eval()
        logits: Tensor = model(torch.from_numpy(split.images[:1]).to(device))
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise DataError(
            f"{split.name} has labels {low} to {high}, the model has {logits.shape[1]} outputs; use its classes"
        )
