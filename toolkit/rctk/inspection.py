"""What is in a bundle or an ONNX file: its files, layers, figures and what the linter says."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from rctk_export.bundle import Bundle, BundleFile, file_sha256, read_bundle
from rctk_export.input_spec import InputSpec
from rctk_export.intake import leading_normalisation, notes, softmax_output
from rctk_export.lint import Finding, lint
from rctk_export.lint.layers import LayerRow, layer_rows, parameter_count, weights_alone
from rctk_export.lint.view import View
from rctk_export.lint.weighted import INTEGER
from rctk_export.onnx_files import load_onnx
from rctk_export.quantize import PLANNERS
from rctk_export.registry import unknown
from rctk_kernels.errors import EngineError

FUSED = {*INTEGER, "QLinearAdd"}
"""Operators that hold integers themselves, as ONNX Runtime's QOperator format and dynamic quantization write them."""
ON_PURPOSE = ("kept float", "only linear layers")
"""How the reasons in a manifest begin that somebody chose: a flag, a margin of accuracy, a form for linear layers."""
ONNX_ROLES = ("float", "int8", "evaluation")
SLOW = "it is placed for TensorRT's fusions, so its speed in ONNX Runtime says nothing about a device"


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What one ONNX file holds.

    Attributes:
        opset: Of the standard operators.
        inputs: Name, type and shape of every input, as text.
        outputs: The same of every output.
        layers: One row per node that multiplies by weights.
        operators: How often each operator occurs.
        parameters: Trained values.
        macs: Multiplications with addition for one image; None where a shape is unknown.
        linted_for: The target whose rules were applied; empty for a float graph.
        findings: What they found.
        runs_in_float: Layers that ONNX Runtime runs in float on this machine after optimisation; None where it was not
            asked, because the graph is float or the runtime is not installed.
        remarks: Further things worth knowing, one sentence each.
    """

    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[LayerRow, ...]
    operators: Mapping[str, int]
    parameters: int
    macs: int | None
    linted_for: str
    findings: tuple[Finding, ...]
    runs_in_float: tuple[str, ...] | None
    remarks: tuple[str, ...]

    @property
    def integer_layers(self) -> int:
        """Number of layers that multiply integers, or hold them in a file that quantizes nothing but weights."""
        return sum(not layer.reason for layer in self.layers)

    @property
    def quantized(self) -> bool:
        """Whether any layer holds integers or was meant to."""
        return bool(self.linted_for) or any(layer.arithmetic != "float" for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file.

    Attributes:
        role: ``float``, ``int8``, ``evaluation`` or ``plan``.
        target: Such as ``cpu``; empty for a float or bare file.
        name: File name.
        size_bytes: Its length.
        sha256: Its hash, verified.
        agreement: Engine against twin as measured on export, from the manifest; empty where nobody measured.
        graph: What is in it; None for a plan.
    """

    role: str
    target: str
    name: str
    size_bytes: int
    sha256: str
    agreement: Mapping[str, Any] = field(default_factory=dict)
    graph: GraphFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """A bundle, or a bare ONNX file.

    Attributes:
        name: Of the model or the file.
        sha256: Of the manifest or the file.
        input: Shape and normalisation of its images; None for a bare file, which does not say.
        classes: Their names; empty where nobody told.
        files: A bare file has one.
        model: Where the parent came from; empty for a bare file.
        calibration: Data and settings of the quantization.
        versions: Of the packages that made the bundle.
        created: Time in UTC, ISO 8601; empty for a bare file.
    """

    name: str
    sha256: str
    files: tuple[FileRow, ...]
    input: InputSpec | None = None
    classes: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def describe(path: Path, target: str = "") -> Description:
    """Describe the bundle or ONNX file at ``path``; every hash of a bundle is verified.

    Args:
        path: Bundle folder or ``.onnx`` file.
        target: Rules for a bare int8 file: ``cpu``, ``tensorrt`` or ``cpu-mirror``; guessed from its types if empty.
            In a bundle only this target's int8 file is looked into.
    """
    if path.is_file():
        if target and target not in PLANNERS.names():
            raise unknown("target", target, PLANNERS.names())
        return _describe_file(path, target)
    bundle = read_bundle(path)
    if target:
        bundle.file("int8", target)  # words the error
    return Description(
        name=bundle.name,
        sha256=bundle.sha256,
        files=tuple(_bundle_file(bundle, file, target) for file in bundle.files),
        input=bundle.input,
        classes=bundle.classes,
        model=bundle.model,
        calibration=bundle.calibration,
        versions=bundle.versions,
        created=bundle.created,
    )


def graph_facts(model: onnx.ModelProto, target: str = "", reasons: Mapping[str, str] | None = None) -> GraphFacts:
    """Look into a graph.

    Args:
        model: Weights in memory.
        target: Whose rules to apply; guessed if empty, none for a float graph.
        reasons: Why layers were left in float, by name.
    """
    kinds = {node.op_type for node in model.graph.node}
    fused = sorted(kinds & FUSED)
    quantized = bool(fused or kinds & {"QuantizeLinear", "DequantizeLinear"})
    rules = (target or guess_target(model)) if quantized and not fused else ""
    layers = layer_rows(model, reasons)
    macs = [layer.macs for layer in layers]
    stored = {tensor.name for tensor in model.graph.initializer}
    runs_in_float, problem = _runs_in_float(model) if quantized else (None, [])
    inputs = [end for end in model.graph.input if end.name not in stored]
    return GraphFacts(
        opset=next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0),
        inputs=tuple(_end_text(end) for end in inputs),
        outputs=tuple(_end_text(end) for end in model.graph.output),
        layers=tuple(layers),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        parameters=parameter_count(model),
        macs=None if None in macs else sum(count or 0 for count in macs),
        linted_for=rules,
        findings=tuple(_findings(model, rules, reasons or {})) if rules else (),
        runs_in_float=runs_in_float,
        remarks=(
            *_remarks(model, len(inputs)),
            *problem,
            *_left_out(rules, fused, layers),
        ),
    )


def _left_out(rules: str, fused: Sequence[str], layers: Sequence[LayerRow]) -> Iterator[str]:
    """Yield what the counts and findings of a quantized graph leave out."""
    if rules in {"tensorrt", "cpu-mirror"}:
        yield SLOW
    if fused:
        yield f"{', '.join(fused)} hold integers themselves; the rules are for Q/DQ nodes, so none was applied"
    for layer in layers:
        if layer.padding:
            yield f"{layer.name} is stored with {layer.padding}, which parameters and MACs leave out"


def _findings(model: onnx.ModelProto, target: str, reasons: Mapping[str, str]) -> list[Finding]:
    """Lint; what the reader of the manifest knows already is no finding."""
    alone = target == "cpu" and weights_alone(View(model))
    return [each for each in lint(model, target) if not _known(each, reasons, alone=alone)]


def _known(finding: Finding, reasons: Mapping[str, str], *, alone: bool) -> bool:
    """Tell whether somebody wanted this: a layer in float, which then may read codes, or weights alone in integers."""
    if finding.rule == "half-quantized":
        return alone or finding.node in reasons
    return finding.rule == "float-layer" and reasons.get(finding.node, "").startswith(ON_PURPOSE)


def guess_target(model: onnx.ModelProto) -> str:
    """Return the target that the activation codes of a quantized graph look made for."""
    zeros = [q.zero for q in View(model).formats if q.role == "activation" and q.quantizes]
    if any(zero is not None and str(zero.dtype) == "int8" for zero in zeros):
        return "tensorrt"
    around_128 = [zero is not None and bool((zero == 128).all()) for zero in zeros]
    return "cpu-mirror" if zeros and all(around_128) else "cpu"


def _describe_file(path: Path, target: str) -> Description:
    graph = graph_facts(load_onnx(path), target)
    digest = file_sha256(path)
    role = "int8" if graph.linted_for or FUSED & graph.operators.keys() else "float"
    row = FileRow(role=role, target="", name=path.name, size_bytes=path.stat().st_size, sha256=digest, graph=graph)
    return Description(name=path.name, sha256=digest, files=(row,))


def _bundle_file(bundle: Bundle, file: BundleFile, target: str) -> FileRow:
    wanted = file.role in ONNX_ROLES and (not target or file.target in {"", target})
    facts = file.facts
    if file.role == "evaluation":  # the int8 file without the rounding of its logits
        facts = next((f.facts for f in bundle.files if (f.role, f.target) == ("int8", file.target)), facts)
    reasons = {kept["name"]: kept["reason"] for kept in facts.get("kept_float", ())}
    rules = file.target if file.role == "int8" else ""
    return FileRow(
        role=file.role,
        target=file.target,
        name=file.path,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        agreement=file.facts.get("agreement", {}),
        graph=graph_facts(load_onnx(bundle.path / file.path), rules, reasons) if wanted else None,
    )


def _end_text(end: onnx.ValueInfoProto) -> str:
    tensor = end.type.tensor_type
    sizes = [str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim]
    return f"{end.name} {TensorProto.DataType.Name(tensor.elem_type).lower()} [{', '.join(sizes)}]"


def _runs_in_float(model: onnx.ModelProto) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the layers that stay float in ONNX Runtime, and why that is not known."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None, ["ONNX Runtime is not installed, so nobody asked it which layers stay float"]
    from rctk_export.lint.fusion import fusion_report  # noqa: PLC0415  # onnxruntime is optional here

    try:
        return fusion_report(model).float, []
    except EngineError as error:
        return None, [str(error)]


def _remarks(model: onnx.ModelProto, inputs: int) -> list[str]:
    remarks = notes(model)
    if inputs != 1 or len(model.graph.output) != 1:
        return [*remarks, f"it has {inputs} inputs and {len(model.graph.output)} outputs; rctk runs one of each"]
    first, last = leading_normalisation(model), softmax_output(model)
    if first is not None:
        remarks.append(f"normalisation is inside: {first.op_type} reads the input")
    if last is not None and not any("softmax" in remark for remark in remarks):
        remarks.append(f"the output is a {last.op_type}")
    return remarks
