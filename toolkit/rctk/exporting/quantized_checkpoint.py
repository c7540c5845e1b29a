"""What graph steps made, in one file: the graph, every decided number format, and the float parent.

``rctk compress`` writes it where a recipe ends in graph steps, and ``rctk export`` makes a bundle of it for any target
that its grids fit, without training or searching again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rctk.compress.draft_file import GRAPH, draft_contents, draft_of, graph_of, graph_tensor
from rctk.compress.recipe import Recipe
from rctk.compress.step import Draft
from rctk.exporting.float_model import FloatModel
from rctk.model_io.contents import DRAFT
from rctk.model_io.tensors import peek, read_tensors, write_tensors
from rctk_export.bundle import file_sha256
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

VERSION = 1
PARENT = "parent"
"""Name of the tensor with the bytes of the float parent, where it is not the graph of the draft."""


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """A draft and the float model that it is to replace.

    Attributes:
        draft: The graph, with every decision about its quantization.
        parent: The float classifier that stands beside the int8 files of a bundle.
        source: The file that it was read from; empty for one that was made just now.
        sha256: Of that file.
    """

    draft: Draft
    parent: FloatModel
    source: str = ""
    sha256: str = ""

    @property
    def input(self) -> InputSpec:
        """Shape and normalisation of its images."""
        return self.parent.input

    def stepped(self, draft: Draft, recipe: Recipe) -> QuantizedModel:
        """Return the model with what the graph steps of ``recipe`` have made of its draft, and its record of them."""
        origin = self.parent.origin
        origin = {**origin, "recipe": [*origin.get("recipe", ()), *recipe.as_list()]}
        return QuantizedModel(draft=draft, parent=replace(self.parent, origin=origin))


def holds_quantized(path: Path) -> bool:
    """Tell whether :func:`save_quantized` wrote the file at ``path``; no other file is read as a whole."""
    return path.is_file() and peek(path).get("format") == DRAFT


def save_quantized(path: Path, model: QuantizedModel) -> None:
    """Write one file, wholly or not at all; a name that ends in ``.safetensors`` gives that format.

    Raises:
        ModelError: The file cannot be written.
    """
    header, tensors = draft_contents(model.draft)
    parent = graph_tensor(model.parent.model)
    if not (parent.shape == tensors[GRAPH].shape and bool((parent == tensors[GRAPH]).all())):
        tensors[PARENT] = parent
    own: dict[str, Any] = {"format": DRAFT, "version": VERSION, "draft": header}
    own |= {"classes": list(model.parent.classes), "origin": model.parent.origin}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, own, tensors)


def read_quantized(path: Path) -> QuantizedModel:
    """Read what :func:`save_quantized` wrote; :class:`ModelError` where it is damaged or newer than this rctk."""
    header, tensors = read_tensors(path)
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ModelError(
            f"{path} is a quantized checkpoint of version {version}, this rctk reads up to {VERSION}; upgrade rctk"
        )
    try:
        draft = draft_of(header["draft"], tensors, path)
        parent = FloatModel(
            model=graph_of(tensors[PARENT], path) if PARENT in tensors else draft.model,
            input=draft.input,
            classes=tuple(str(name) for name in header["classes"]),
            origin=dict(header["origin"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is a damaged checkpoint ({type(error).__name__}: {error}); make it again") from error
    return QuantizedModel(draft=draft, parent=parent, source=path.name, sha256=file_sha256(path))
