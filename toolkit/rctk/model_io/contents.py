"""What a model file holds, before flags complete it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rctk.model_io.captured import read_pt2, read_torchscript
from rctk.model_io.forms import Form
from rctk.model_io.pickles import read_pickle
from rctk.model_io.state import StateDict, find_state_dict
from rctk.model_io.tensors import read_tensors
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

FORMAT = "rctk-checkpoint"
VERSION = 1
DRAFT = "rctk-quantized"
"""Format of a graph with decided number formats, which is no module; see :mod:`rctk.compress.draft_file`."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Weights or a whole module, and as much of its description as the file carries.

    Attributes:
        form: As in :class:`rctk.checkpoint.LoadedModel`.
        weights: A state dict, or a module that needs none.
        arch: Text of ``--arch``.
        input: Shape and normalisation of the images.
        classes: Names; empty where the file has none.
        extra: Plain values kept beside the model.
    """

    form: str
    weights: StateDict | nn.Module
    arch: str | None = None
    input: InputSpec | None = None
    classes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_contents(path: Path, form: Form, arch: str | None, spec: InputSpec | None, *, trust_pickle: bool) -> Contents:
    """Read ``path``; ``arch`` and ``spec`` are the user's flags, which captured graphs refuse and need."""
    if form == "safetensors":
        return _read_safetensors(path)
    if form == "pickle":
        return _read_saved(path, trust_pickle=trust_pickle)
    if arch is not None:
        raise ModelError(f"{path} holds its own graph; leave --arch {arch} out")
    if form == "pt2":
        return Contents(form=form, weights=read_pt2(path, spec))
    if spec is None:
        raise no_input(path)
    return Contents(form=form, weights=read_torchscript(path, spec))


def no_input(path: Path) -> ModelError:
    """Word the error for images that nobody described."""
    return ModelError(
        f"{path} does not say what its images are; give --input 3x32x32 (channels, height, width) and, where the model "
        "expects normalised images, --mean and --std"
    )


def holds_graph(path: Path, header: Mapping[str, Any]) -> str:
    """Word the error for a quantized checkpoint where a torch module is wanted."""
    origin = header.get("origin", {})
    return (
        f"{path} holds a quantized graph, which is no torch module any more; `rctk export --int8 {path}` writes its "
        f"bundle; to train, prune or distill, begin with {origin.get('source', 'its parent')}"
    )


def _read_saved(path: Path, *, trust_pickle: bool) -> Contents:
    content = read_pickle(path, trust_pickle=trust_pickle)
    if isinstance(content, dict) and content.get("format") in {FORMAT, DRAFT}:
        return _from_header(content, content.get("state_dict"), "checkpoint", path)
    found = find_state_dict(content, path)
    if isinstance(found, nn.Module):
        found = found.module if isinstance(found, nn.DataParallel) else found
        kind = type(found)
        return Contents(form="pickle", weights=found, arch=f"{kind.__module__}.{kind.__qualname__}")
    return Contents(form="state-dict", weights=found)


def _read_safetensors(path: Path) -> Contents:
    header, state = read_tensors(path)
    if not header:
        return Contents(form="safetensors", weights=find_state_dict(state, path))
    return _from_header(header, state, "safetensors", path)


def _from_header(header: Mapping[str, Any], state: Any, form: str, path: Path) -> Contents:
    if header.get("format") == DRAFT:
        raise ModelError(holds_graph(path, header))
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ModelError(f"{path} is a checkpoint of version {version}, this rctk reads up to {VERSION}; upgrade rctk")
    try:
        return Contents(
            form=form,
            weights={str(key): value for key, value in state.items() if isinstance(value, Tensor)},
            arch=str(header["arch"]),
            input=InputSpec.from_dict(header["input"]),
            classes=tuple(str(name) for name in header["classes"]),
            extra=dict(header["extra"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is a damaged checkpoint ({type(error).__name__}: {error}); save it again") from error
