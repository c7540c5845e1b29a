"""A draft becomes int8 files: plan, calibrate, write Q/DQ, lint; one file per target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from rctk.compress.step import Draft, Form
from rctk.data.split import Split
from rctk.progress import Progress
from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Ranges, calibrate
from rctk_export.graph import Graph
from rctk_export.lint import require_clean
from rctk_export.lint.fusion import fusion_report
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.dynamic import write_dynamic
from rctk_export.quantize.formats import Formats
from rctk_export.quantize.plan import WEIGHTED, Layer, Plan, kept_float_nodes
from rctk_export.quantize.plan_mirror import mirror
from rctk_export.quantize.weight_only import linear_layers, write_weight_only
from rctk_export.quantize.write import write_qdq
from rctk_export.registry import unknown
from rctk_kernels.errors import OptionError

MIRROR = "cpu-mirror"
MARGIN = "kept float to keep the margin of accuracy"


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """One int8 file before it is written.

    Attributes:
        target: Its target.
        model: Linted graph.
        plan: Which layers are int8 and which stayed float.
        facts: For the manifest: layers, ranges, formats, what the steps did.
    """

    target: str
    model: onnx.ModelProto
    plan: Plan
    facts: dict[str, Any] = field(default_factory=dict)


def plans_of(draft: Draft, targets: Collection[str]) -> dict[str, Plan]:
    """Return one plan per target; the mirror is made from the plan of ``tensorrt``.

    Raises:
        OptionError: A layer to keep float does not exist, or no layer can be int8.
    """
    graph = Graph(draft.model)
    check_layers(graph, [*draft.keep_float, *draft.formats.layer_bits, *draft.formats.weights])
    wanted = dict.fromkeys("tensorrt" if target == MIRROR else target for target in targets)
    plans = {target: PLANNERS.build(target).plan(graph, draft.keep_float) for target in wanted}
    if not any(plan.layers for plan in plans.values()):
        reasons = {f"{kept.name}: {kept.reason}" for plan in plans.values() for kept in plan.kept_float}
        found = "; ".join(sorted(reasons)[:3]) or "it has no convolution, linear layer or matrix product"
        raise OptionError(f"no layer of this model can be int8 ({found}); export another model")
    return plans


def int8_files(
    draft: Draft, targets: Sequence[str], calibration: Split, progress: Progress, *, seed: int = 0
) -> list[Quantized]:
    """Return the int8 form of ``draft`` for every target, linted; calibration runs once for all of them.

    Args:
        draft: The float graph and every decision about it.
        targets: ``tensorrt`` always brings its ``cpu-mirror`` along.
        calibration: Its images set the ranges that ``draft`` leaves open.
        progress: Shows the stages.
        seed: Of adversarial calibration images.
    """
    if draft.form != "static":
        return [_unplaced(draft, targets, progress)]
    plans = plans_of(draft, targets)
    if speed := speed_of(draft.formats):
        progress.note(speed)
    ranges = ranges_of(draft, plans, calibration, progress, seed=seed)
    made = [_quantized(target, draft, plan, ranges) for target, plan in plans.items()]
    return [*made, *(_mirrored(item) for item in made if item.target == "tensorrt")]


def ranges_of(
    draft: Draft, plans: Mapping[str, Plan], calibration: Split, progress: Progress, *, seed: int = 0
) -> Ranges:
    """Return the range of every tensor that a plan quantizes, as the draft knows it or as calibration finds it."""
    wanted = {tensor for plan in plans.values() for tensor in plan.calibrated()}
    known = {name: draft.ranges[name] for name in wanted & set(draft.ranges)}
    known |= {name: draft.formats.steps[name].reach for name in wanted & set(draft.formats.steps)}
    missing = sorted(wanted - set(known))
    if not missing:
        return known
    calibrator = CALIBRATORS.build(draft.calibrator)
    with progress.stage("calibrate", len(calibration)) as step:
        found = calibrate(
            draft.model,
            missing,
            calibration.images,
            calibrator,
            step,
            bits=draft.formats.of_tensor,
            kind=draft.images,
            seed=seed,
        )
    return found | known


def check_layers(graph: Graph, names: Collection[str]) -> None:
    """Refuse names of layers that ``graph`` does not have."""
    layers = [node.name for node in graph.nodes if node.op_type in {"Conv", "Gemm", "Add"}]
    for name in names:
        if name not in layers:
            raise unknown("layer", name, layers)


def check_form(form: Form, targets: Sequence[str]) -> None:
    """Refuse targets for which no file of ``form`` can be written."""
    if form != "static" and set(targets) != {"cpu"}:
        raise OptionError(f"{form} files are for ONNX Runtime on CPUs only; pass --target cpu and no other")


def _quantized(target: str, draft: Draft, plan: Plan, ranges: Ranges) -> Quantized:
    written = write_qdq(draft.model, plan, ranges, draft.formats)
    onnx.checker.check_model(written, full_check=True)
    require_clean(written, target, [kept.name for kept in plan.kept_float])
    return Quantized(target=target, model=written, plan=plan, facts=_facts(draft, plan, ranges))


def _unplaced(draft: Draft, targets: Sequence[str], progress: Progress) -> Quantized:
    """Return the file of a form that no planner places: activation grids at run time, or weights alone."""
    check_form(draft.form, targets)
    graph = Graph(draft.model)
    if draft.form == "dynamic":
        written = write_dynamic(draft.model, draft.keep_float)
        layers = [node.name for node in graph.nodes if node.op_type in WEIGHTED and node.name not in draft.keep_float]
    else:
        written = write_weight_only(draft.model, draft.formats, draft.keep_float)
        layers = [node.name for node in linear_layers(graph) if node.name not in draft.keep_float]
    onnx.checker.check_model(written, full_check=True)
    plan = Plan(signed=False, integer_bias=False, layers=[Layer(name) for name in layers])
    reason = "kept float" if draft.form == "dynamic" else "only linear layers store weights alone"
    reasons = dict.fromkeys((node.name for node in graph.nodes), reason)
    plan.kept_float = kept_float_nodes(graph, plan, reasons | dict.fromkeys(draft.keep_float, "kept float on request"))
    kernels = sorted(name.removesuffix("/MatMulAddFusion") for name in fusion_report(written).int8)
    speed = what_runs(draft, layers, kernels)
    progress.note(speed)
    facts = {**_facts(draft, plan, {}), "form": draft.form, "integer_kernels": kernels, "speed": speed}
    return Quantized(target="cpu", model=written, plan=plan, facts=facts)


def what_runs(draft: Draft, layers: Collection[str], kernels: Collection[str]) -> str:
    """Say which layers this machine's ONNX Runtime computes on integers, and what that means for time."""
    slow = sorted(set(layers) - set(kernels))
    parts = [f"ONNX Runtime here computes {', '.join(kernels) or 'no layer'} on integers"]
    if draft.form == "weight-only" and kernels:
        parts.append("inputs rounded to int8, 32 at a time; that is fast where layers are large and batches small")
        narrow = any(draft.formats.of_layer(name) == 2 for name in layers)
        parts += ["2 bits save bytes and no time over 4 bits"] if narrow else []
    if slow:
        parts.append(f"{', '.join(slow)}: dequantized on every call, smaller and slower than float")
    return "; ".join(parts)


def speed_of(formats: Formats) -> str:
    """Say what widths below 8 bits are good for; empty where there are none.

    Example:
        >>> speed_of(Formats(weight_bits=4))
        'weights of fewer than 8 bits are stored in 8: size and time are those of int8'
    """
    grids = any(step.high - step.low < 254 for step in formats.steps.values())
    if grids or min(formats.activation_bits, *formats.tensor_bits.values(), 8) < 8:
        return (
            "activations of fewer than 8 bits are clipped to their grid, and ONNX Runtime computes layers in front of "
            "a clip in float: such files show accuracy, not speed"
        )
    if min(formats.weight_bits, *formats.layer_bits.values(), 8) < 8:
        return "weights of fewer than 8 bits are stored in 8: size and time are those of int8"
    return ""


def _mirrored(item: Quantized) -> Quantized:
    written = mirror(item.model)
    onnx.checker.check_model(written, full_check=True)
    require_clean(written, MIRROR, [kept.name for kept in item.plan.kept_float])
    return Quantized(target=MIRROR, model=written, plan=item.plan, facts=item.facts)


def _facts(draft: Draft, plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    margin = draft.facts.get("quant.mixed", {}).get("kept_float", ())
    kept_float = [asdict(kept) for kept in plan.kept_float]
    return {
        "int8_layers": [layer.name for layer in plan.layers],
        "kept_float": [kept | ({"reason": MARGIN} if kept["name"] in margin else {}) for kept in kept_float],
        "ranges": {name: list(ranges[name]) for name in plan.calibrated()},
        "formats": draft.formats.facts(),
        "steps": dict(draft.facts),
    }
