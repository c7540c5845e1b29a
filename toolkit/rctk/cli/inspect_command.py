"""``rctk inspect``."""

from __future__ import annotations

import dataclasses
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

from rctk.cli.console import share, show_steps, size, table
from rctk.cli.flags import ModelFlags, Switch
from rctk.cli.plan_tables import show_plan
from rctk.cli.runtime_table import show_runtime
from rctk.cli.sensitivity_table import SensitivityFlags, show_sensitivity
from rctk_export.tensorrt.record import PLAN
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk.inspection import Description, FileRow, GraphFacts

NO_MODEL_FLAGS = ModelFlags()
NO_SENSITIVITY = SensitivityFlags()
FORMAT = ("weight_bits", "arithmetic", "reason", "weight_scales", "input_scale")
"""What float graphs have nothing to say about."""
FILE_COLUMNS = (
    *("file", "size", "integer / layers", "float when optimised", "parameters", "MACs"),
    *("as float", "twin agrees, clean", "adversarial", "SHA-256"),
)


def inspect_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    target: str = "",
    engine: str = "",
    layers: Switch = False,
    json: Switch = False,
    measured: SensitivityFlags = NO_SENSITIVITY,
    flags: ModelFlags = NO_MODEL_FLAGS,
) -> None:
    """Show what is in a bundle, an ONNX file, a TensorRT plan or a checkpoint: files, layers, what stayed float, why.

    Of a checkpoint it counts parameters, multiplications, bytes and zeros; of a quantized one it shows the widths and
    grids that steps have decided.

    Example: rctk inspect model-int8 --target cpu --layers

    Args:
        path: Bundle folder, .onnx file, .plan file with its record beside it, or model file of torch.
        target: Look into this target's int8 file; for a bare file, lint it by this target's rules.
        engine: Show how this engine runs a file: the weighted layers of openvino, which also reads .xml files, or the
            nodes by provider of onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt.
        layers: List every layer, or every trained tensor of a checkpoint.
        json: Print JSON instead of tables.
        measured: For --sensitivity.
        flags: How to read a model file of torch.
    """
    measured.check()
    if engine:
        if measured.sensitivity or flags != NO_MODEL_FLAGS:
            raise OptionError("--engine goes with --target, --layers and --json alone; leave the other flags away")
        show_runtime(path, target, engine, layers=layers, json=json)
        return
    if path.is_file() and path.suffix not in {".onnx", PLAN}:
        _checkpoint(path, target, measured, flags, layers=layers, json=json)
        return
    if flags != NO_MODEL_FLAGS:
        raise OptionError(f"--arch, --input and the like say how to read a model file of torch, and {path} is none")
    if measured.sensitivity:
        show_sensitivity(path, target, measured, json=json)
        return
    if path.suffix == PLAN and not path.is_dir():
        show_plan(path, layers=layers, json=json)
        return
    from rctk.inspection import describe  # noqa: PLC0415  # a plan is shown where onnx is not installed

    found = describe(path, target)
    if json:
        print(json_module.dumps(found.as_dict(), indent=2, default=str))
        return
    _head(found)
    table("files", FILE_COLUMNS, [_file(file) for file in found.files])
    for file in found.files:
        if file.graph is not None:
            _graph(file.name, file.graph, every_layer=layers)


def _checkpoint(
    path: Path, target: str, measured: SensitivityFlags, flags: ModelFlags, *, layers: bool, json: bool
) -> None:
    if target or measured.sensitivity:
        raise OptionError(f"--target and --sensitivity look into int8 files; export {path} first")
    from rctk.cli.checkpoint_table import show_checkpoint  # noqa: PLC0415  # a plan is shown without torch
    from rctk.cli.quantized_table import show_quantized  # noqa: PLC0415
    from rctk.exporting.quantized_checkpoint import holds_quantized  # noqa: PLC0415

    if flags == NO_MODEL_FLAGS and holds_quantized(path):
        show_quantized(path, layers=layers, json=json)
        return
    show_checkpoint(path, flags, layers=layers, json=json)


def _head(found: Description) -> None:
    print(f"{found.name}  {found.sha256[:16]}  {found.created}".rstrip())
    if found.input is not None:
        spec = found.input
        shape = "x".join(str(n) for n in spec.shape)
        normalisation = f"mean {spec.mean}, std {spec.std} inside" if spec.normalises else "no normalisation"
        print(f"input {shape} in [0, 1], {normalisation}; {len(found.classes)} classes")
    for title, facts in (("model", found.model), ("calibration", found.calibration), ("made with", found.versions)):
        flat = {key: value for key, value in facts.items() if value != "" and not isinstance(value, (dict, list))}
        if flat:
            print(f"{title}: " + ", ".join(f"{key} {_short(value)}" for key, value in flat.items()))
    show_steps(found.model.get("recipe", ()))
    before, after = found.model.get("before", {}), found.model.get("after", {})
    for key in (key for key in before if key in after and before[key] != after[key]):
        old, new = (share(each) if isinstance(each, float) else f"{each:,}" for each in (before[key], after[key]))
        print(f"{key.replace('_', ' ')}: {old} before the steps, {new} behind them")


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash


def _file(file: FileRow) -> tuple[str, ...]:
    graph, agreement = file.graph, file.agreement
    counts = "-" if graph is None else f"{graph.integer_layers} / {len(graph.layers)}"
    floats = "-" if graph is None or graph.runs_in_float is None else str(len(graph.runs_in_float))
    macs = "-" if graph is None or graph.macs is None else f"{graph.macs:,}"
    agrees = (share(agreement.get(name)) for name in ("parent", "clean", "adversarial"))
    parameters = "-" if graph is None else f"{graph.parameters:,}"
    role = f"{file.role} {file.target}".strip()
    return role, size(file.size_bytes), counts, floats, parameters, macs, *agrees, file.sha256[:12]


def _graph(name: str, graph: GraphFacts, *, every_layer: bool) -> None:
    operators = ", ".join(f"{count} {operator}" for operator, count in graph.operators.items())
    print(f"\n{name}: opset {graph.opset}; {', '.join(graph.inputs)} -> {', '.join(graph.outputs)}")
    print(f"  {operators}")
    hidden = {"padding", *(() if graph.quantized else FORMAT)}
    shown = [row for row in graph.layers if every_layer or (graph.quantized and row.reason)]
    if shown:
        names = [field.name for field in dataclasses.fields(shown[0]) if field.name not in hidden]
        rows = [[_cell(getattr(row, name)) for name in names] for row in shown]
        table("layers" if every_layer else "layers in float", [name.replace("_", " ") for name in names], rows)
    if graph.runs_in_float:
        print(f"  ONNX Runtime runs in float after optimisation: {', '.join(graph.runs_in_float)}")
    for finding in graph.findings:
        print(f"  {finding.severity} {finding.rule} at {finding.node}: {finding.message}; {finding.remedy}")
    if graph.linted_for and not graph.findings:
        print(f"  keeps every rule of target {graph.linted_for}")
    for remark in graph.remarks:
        print(f"  {remark}")


def _cell(value: object) -> str:
    """Print a number, a shape or the ends of a range."""
    if isinstance(value, tuple):
        between = " to " if any(isinstance(part, float) for part in value) else "x"
        return between.join(map(_cell, value)) or "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value in {None, ""} else f"{value:,}" if isinstance(value, int) else str(value)
