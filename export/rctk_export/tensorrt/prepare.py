"""What goes into the builder: the bytes of the file, with the precision of the rest written in where that can be."""

from __future__ import annotations

import importlib.util
from typing import Literal, NamedTuple

from rctk_export.engine import Source
from rctk_export.tensorrt.options import BuildOptions
from rctk_kernels.errors import EngineError


class Prepared(NamedTuple):
    """A file for the builder."""

    content: bytes
    typing: Literal["strong", "weak"]
    notes: tuple[str, ...]


def prepare(source: Source, options: BuildOptions) -> Prepared:
    """Read ``source`` and decide how its types reach TensorRT."""
    from rctk_export.tensorrt.build import decide_typing  # noqa: PLC0415  # here TensorRT is imported

    if not source.path.is_file():
        raise EngineError(f"no model file at {source.path}; give the path of a bundle or an .onnx file")
    has_onnx = importlib.util.find_spec("onnx") is not None
    typing = decide_typing(options, rewritten=has_onnx)
    notes = _sparsity(source) if options.sparsity and has_onnx else ()
    if options.precision_rest == "fp32" or typing == "weak":
        return Prepared(source.path.read_bytes(), typing, notes)
    from rctk_export.onnx_files import load_onnx, serialize  # noqa: PLC0415  # only where onnx is installed
    from rctk_export.tensorrt.rest_precision import narrow_rest  # noqa: PLC0415

    return Prepared(serialize(narrow_rest(load_onnx(source.path), options.precision_rest)), typing, notes)


def _sparsity(source: Source) -> tuple[str, ...]:
    from rctk_export.onnx_files import load_onnx  # noqa: PLC0415
    from rctk_export.tensorrt.two_four import sparse_layers  # noqa: PLC0415

    found = sparse_layers(load_onnx(source.path))
    count = sum(found.values())
    if count:
        return (f"{count} of {len(found)} layers have 2:4 sparse weights",)
    return ("no layer has 2:4 sparse weights, so --sparsity changes nothing; prune with a 2:4 step first",)
