"""Which provider of ONNX Runtime runs which nodes of a file, as ``rctk inspect --engine onnxruntime...`` shows it."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rctk.cli.console import share, table
from rctk.machine import PACKAGES, installed
from rctk_export.bundle import is_bundle, read_bundle
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk_export.engines.onnxruntime import OnnxRuntimeEngine

ONNXRUNTIME = "onnxruntime"


def show_placement(path: Path, target: str, engine: str, *, layers: bool, json: bool) -> None:
    """Print the share of nodes that each provider runs; with TensorRT an engine is built to find out.

    Args:
        path: Bundle, whose int8 files are shown, or an ``.onnx`` file.
        target: Show this int8 file of a bundle alone.
        engine: ``onnxruntime``, ``onnxruntime-cuda`` and so on, with settings.
        layers: List every node.
        json: Print JSON instead.
    """
    settings, version = ENGINES.build(engine), installed(PACKAGES[ONNXRUNTIME])
    found = []
    for source in _sources(path, target):
        with settings.open(source) as opened:
            found.append((source.path.name, cast("OnnxRuntimeEngine", opened).nodes()))
    if json:
        rows = [{"file": name, "engine": engine, "version": version, "nodes": nodes} for name, nodes in found]
        print(json_module.dumps(rows, indent=2))
        return
    for name, nodes in found:
        total = sum(len(names) for names in nodes.values())
        each = ", ".join(f"{share(len(names) / total)} {provider}" for provider, names in nodes.items())
        unknown = "nodes not known: ONNX Runtime tells them from 1.24 on"
        print(f"{name} in {engine} {version}: {f'{total} nodes, {each}' if nodes else unknown}")
        if layers:
            table("nodes", ("node", "provider"), [(node, p) for p, names in nodes.items() for node in names])


def _sources(path: Path, target: str) -> Iterator[Source]:
    if is_bundle(path) or path.is_dir():
        bundle = read_bundle(path)
        yield from (bundle.source("int8", name) for name in ((target,) if target else bundle.targets()))
        return
    if path.suffix != ".onnx":
        raise OptionError(f"--engine {ONNXRUNTIME} looks into bundles and .onnx files, and {path} is none")
    if target:
        raise OptionError(f"--target chooses a file of a bundle; {path.name} is a bare file")
    yield Source(path=path, input=_input(path))


def _input(path: Path) -> InputSpec:
    """Read the size of the images out of a bare file."""
    from rctk_export.onnx_files import load_onnx  # noqa: PLC0415  # a bundle is shown where onnx is not installed

    graph = load_onnx(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(sizes) != 4 or min(sizes[1:]) < 1:
        raise OptionError(f"{path.name} does not say how large its images are; export it with fixed height and width")
    return InputSpec(channels=sizes[1], height=sizes[2], width=sizes[3])
