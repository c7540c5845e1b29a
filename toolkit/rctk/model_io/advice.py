"""Which ``--arch`` would read a state dict, as advice for an error message."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from rctk.model_io.checks import count_classes
from rctk.model_io.matching import Difference, differences, load_into, spellings
from rctk.models import ARCHITECTURES, build_architecture
from rctk.models.pruned import PREFIX
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import RctkError


def nearest(state: dict[str, Tensor], spec: InputSpec | None, path: Path) -> str:
    """Name the built-in architectures that ``state`` is a pruned form of, or whose tensors agree most with it.

    Args:
        state: Tensors of the file.
        spec: Shape of the images; None for the usual ones of each architecture.
        path: The file.
    """
    names = spellings(state)[-1]
    scores: dict[str, float] = {}
    pruned: list[str] = []
    for name in ARCHITECTURES.names():
        try:
            with torch.device("meta"):  # shapes only
                module = build_architecture(name, classes=None, input=spec)
        except RctkError:  # not for images of this size
            continue
        wrong, expected = list(differences(module, names)), module.state_dict()
        same = sum(key in names and value.shape == names[key].shape for key, value in expected.items())
        scores[name] = same / max(len(names), len(expected))
        if shrunk(wrong) and reads_pruned(state, name, spec or usual_images(name), None, path):
            pruned.append(name)
    if pruned:
        known = ", ".join(f"--arch {PREFIX}{name}" for name in pruned)
        return f"nearest: {known} (its names are there, but tensors are smaller, as after pruning)"
    best = sorted((name for name in scores if scores[name] >= 0.5), key=lambda name: -scores[name])[:3]
    if not best:
        return "no built-in architecture comes near; write a factory and give --arch FILE.py:FACTORY"
    return "nearest: " + ", ".join(f"--arch {name} ({scores[name]:.0%} of the tensors fit)" for name in best)


def shrunk(wrong: list[Difference]) -> bool:
    """Tell whether pruning alone can have made these differences: names are all there, no tensor is larger.

    Names that a file has beyond those of the architecture may be shortcuts that became convolutions.

    Example:
        >>> shrunk([Difference("w", (3, 8), (4, 8))]), shrunk([Difference("w", (3, 9), (4, 8))])
        (True, False)
    """
    changed = [(each.found, each.expected) for each in wrong if each.expected is not None]
    return bool(changed) and all(
        found is not None and len(found) == len(expected) and all(a <= b for a, b in zip(found, expected, strict=True))
        for found, expected in changed
    )


def reads_pruned(state: dict[str, Tensor], arch: str, spec: InputSpec, classes: int | None, path: Path) -> bool:
    """Try whether ``--arch pruned:ARCH`` reads ``state`` and the module then classifies such images."""
    if arch.startswith(PREFIX):
        return False
    candidates = spellings(state)
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn only to be overwritten
            module: nn.Module = build_architecture(
                PREFIX + arch, classes=classes, input=spec, state_dict=candidates[-1]
            )
        return load_into(module, candidates) and classes in {None, count_classes(module.float().eval(), spec, path)}
    except RctkError:
        return False


def usual_images(name: str) -> InputSpec:
    """Return the images that a built-in architecture is made for where nobody says another size.

    Example:
        >>> usual_images("digits-cnn").shape
        (1, 8, 8)
    """
    channels, height, width = inspect.signature(ARCHITECTURES.load(name)).parameters["image_shape"].default
    return InputSpec(channels=channels, height=height, width=width)
