"""Models in, checkpoints out.

``load_model`` reads rctk's own checkpoints, state dicts, safetensors, TorchScript, ``torch.export`` programs and, where
the user trusts them, pickled modules. ``save_checkpoint`` writes what loads again without a flag and runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rctk.model_io.advice import nearest
from rctk.model_io.checks import count_classes, refuse_non_finite
from rctk.model_io.contents import FORMAT, VERSION, Contents, no_input, read_contents
from rctk.model_io.forms import form_of
from rctk.model_io.state import build_and_fit
from rctk.model_io.tensors import write_tensors
from rctk.models import runs_code
from rctk_export.bundle import file_sha256
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

__all__ = ["LoadedModel", "load_model", "save_checkpoint"]


@dataclass(frozen=True)
class LoadedModel:
    """A classifier in memory, ready to be trained, attacked or exported.

    Attributes:
        module: Maps *normalised* images ``(N, C, H, W)`` to logits ``(N, K)``; float32, on the CPU, in evaluation mode.
        input: Shape of the images, and the mean and std to normalise them with.
        classes: Names of the ``K`` classes; ``"0"`` to ``"K-1"`` where the file has none.
        arch: Text that :func:`rctk.models.build_architecture` takes; empty for captured graphs.
        source: The file, as it was given.
        sha256: Of the file; names the subject in records.
        form: ``checkpoint``, ``state-dict``, ``safetensors``, ``torchscript``, ``pt2`` or ``pickle``.
        extra: What was stored beside the model, such as how it was trained.
    """

    module: nn.Module
    input: InputSpec
    classes: tuple[str, ...]
    arch: str
    source: str
    sha256: str
    form: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    input: InputSpec | None = None,  # noqa: A002  the flag is --input
    classes: int | None = None,
    trust_pickle: bool = False,
) -> LoadedModel:
    """Read a classifier from any file that holds one; every doubt is a :class:`ModelError` with the next step.

    Args:
        path: The model file.
        arch: Architecture of a bare state dict, as in :func:`rctk.models.build_architecture`.
        input: Shape and normalisation, where the file does not hold them.
        classes: ``K``; checked against the model where that knows it.
        trust_pickle: Unpickle a file that names code, which runs that code.
    """
    path = Path(path)
    form = form_of(path)
    sha256 = file_sha256(path)
    contents = read_contents(path, form, arch, input, trust_pickle=trust_pickle)
    contents = _merge(contents, arch, input, path)
    assert contents.input is not None
    module = _module(contents, classes, path)
    refuse_non_finite(module, path)
    module.float().eval()
    count = count_classes(module, contents.input, path)
    if classes not in {None, count} or len(contents.classes) not in {0, count}:
        raise ModelError(
            f"{path} has {count} outputs, expected {classes or len(contents.classes)} classes; see --classes"
        )
    return LoadedModel(
        module=module,
        input=contents.input,
        classes=contents.classes or tuple(str(index) for index in range(count)),
        arch=contents.arch or "",
        source=str(path),
        sha256=sha256,
        form=contents.form,
        extra=contents.extra,
    )


def _module(contents: Contents, classes: int | None, path: Path) -> nn.Module:
    if isinstance(contents.weights, nn.Module):
        return contents.weights
    assert contents.arch is not None
    assert contents.input is not None
    expected = len(contents.classes) or classes
    return build_and_fit(contents.weights, contents.arch, contents.input, expected, path)


def _merge(contents: Contents, arch: str | None, input: InputSpec | None, path: Path) -> Contents:  # noqa: A002
    """Complete what the file holds with what the user says; they must not contradict each other."""
    stored = contents.input
    if stored is not None and input is not None:
        same = all(np.array_equal(a, b) for a, b in zip(stored.mean_std(), input.mean_std(), strict=True))
        if stored.shape != input.shape or not same:
            raise ModelError(
                f"{path} was saved for {stored}, got {input}; leave --input, --mean and --std out, the file holds them"
            )
    if isinstance(contents.weights, nn.Module):
        arch = contents.arch
    elif arch is None and contents.arch is None:
        raise ModelError(f"{path} is a bare state dict, give --arch; {nearest(contents.weights, input, path)}")
    elif arch is None and contents.arch is not None and runs_code(contents.arch):
        raise ModelError(
            f"{path} was made by --arch {contents.arch}, which runs code; if you trust that, give the --arch again"
        )
    if input is None and stored is None:
        raise no_input(path)
    return replace(contents, arch=arch or contents.arch, input=input or stored)


def save_checkpoint(
    path: str | Path,
    module: nn.Module,
    *,
    arch: str,
    input: InputSpec,  # noqa: A002  the flag is --input
    classes: Sequence[str],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, architecture, input spec and classes to one file, wholly or not at all.

    A name that ends in ``.safetensors`` gives that format, any other a file for ``torch.load(weights_only=True)``. The
    same model gives the same bytes.

    Args:
        path: An existing file is replaced in one step.
        module: Takes normalised images; its tensors are written, its code is not.
        arch: Text from which :func:`rctk.models.build_architecture` makes the same module.
        input: Shape and normalisation of its images.
        classes: Names of the ``K`` classes.
        extra: Plain JSON values to keep beside the model.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "arch": arch,
        "input": input.as_dict(),
        "classes": [str(name) for name in classes],
        "extra": dict(extra or {}),
    }
    write_tensors(Path(path), header, module.state_dict())
