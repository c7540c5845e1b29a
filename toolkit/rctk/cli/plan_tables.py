"""A TensorRT plan on the screen, from the record beside it; the plan itself is not loaded, so no GPU is needed."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from rctk.cli.console import size, table
from rctk_export.tensorrt.inspector import EngineReport
from rctk_export.tensorrt.record import PlanRecord, check_content, read_record


def show_plan(path: Path, *, layers: bool, json: bool) -> None:
    """Print what is known about the plan at ``path``, after checking that it is the one its record describes.

    Args:
        path: The plan.
        layers: List every weighted layer, not only those that do not run in int8.
        json: Print the record as JSON instead.
    """
    record = read_record(path)
    check_content(record, path.name, path.read_bytes(), "")
    if json:
        print(json_module.dumps(json_module.loads(record.text()), indent=2))
        return
    show_record(path, record, layers=layers)


def show_record(path: Path, record: PlanRecord, *, layers: bool = False) -> None:
    """Print a record."""
    place, (low, tuned, high) = record.place, record.batches
    print(f"{path.name}  {record.plan_sha256[:16]}  {record.created}  {size(record.plan_bytes)}")
    shape = "x".join(str(count) for count in record.input.shape)
    print(f"made from {record.onnx} {record.onnx_sha256[:12]}: images {shape}, {_range(low, high)} tuned for {tuned}")
    print(f"typing {record.typing}, rest of the graph {record.options.get('precision_rest', '?')}; {_extras(record)}")
    gpu = f"{place.gpu} (compute capability {place.compute_capability}, {place.gpu_uuid})"
    print(f"valid on: {gpu}, TensorRT {place.tensorrt}, {place.system}")
    print(f"made with: CUDA runtime {place.cuda_runtime}, driver for CUDA {place.cuda_driver}")
    _engine(record.report, every_layer=layers)
    for text in record.warnings:
        print(f"note: {text}")


def _range(low: int, high: int) -> str:
    return f"batches of {low}," if low == high else f"batches of {low} to {high},"


def _extras(record: PlanRecord) -> str:
    options = record.options
    given = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in options.items()
        if key in {"hardware", "version_compatible", "sparsity", "dla", "tf32"} and value not in {None, False, "none"}
    ]
    return ", ".join([*given, f"{size(record.device_memory_bytes)} of scratch memory per context"])


def _engine(found: EngineReport, *, every_layer: bool) -> None:
    counts = [f"{found.count(word)} {word}" for word in ("float", "hidden", "missing") if found.count(word)]
    beside = f" ({', '.join(counts)})" if counts else ""
    on_dla = f", {found.on_dla} blocks on DLA" if found.on_dla else ""
    print(
        f"engine: {found.layers} layers, {found.reformats} of them reformats{on_dla}; {found.count('int8')} of "
        f"{len(found.placed)} weighted layers run in int8{beside}, {found.quantized} have Q/DQ on both inputs"
    )
    rows = [place for place in found.placed if every_layer or place.arithmetic != "int8"]
    if rows and (every_layer or found.quantized):
        cells = [(place.name, place.arithmetic, place.cause or "-", place.tactic or "-") for place in rows]
        table("layers" if every_layer else "layers not in int8", ("layer", "runs in", "why not int8", "kernel"), cells)
