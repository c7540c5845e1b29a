"""Float graph in, bundle out: calibrate, write a Q/DQ file per target, lint it, measure it against its twin."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rctk.data.split import Split
from rctk.exporting.agreement import Agreement, measure_agreement
from rctk.exporting.float_model import FloatModel
from rctk.machine import versions
from rctk.progress import Progress, Silent
from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Ranges, calibrate
from rctk.threat import ThreatModel
from rctk_export.bundle import Bundle
from rctk_export.bundle_writer import BundleWriter
from rctk_export.engine import Source
from rctk_export.graph import Graph
from rctk_export.lint import require_clean
from rctk_export.onnx_files import serialize
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.plan import Plan
from rctk_export.quantize.plan_mirror import mirror
from rctk_export.quantize.write import write_qdq
from rctk_export.registry import unknown
from rctk_kernels.errors import DataError, MismatchError, OptionError

MIRROR = "cpu-mirror"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How a float model becomes an int8 bundle.

    Attributes:
        targets: Int8 flavours to write; ``tensorrt`` always brings its ``cpu-mirror`` along.
        calibrator: How ranges are chosen, such as ``minmax`` or ``percentile:p=99.99``.
        calibration_samples: Training images that calibration sees.
        check_samples: Further images on which engine and twin are compared.
        check_eps: Budget of the adversarial ones among them, linf.
        min_agreement: Least share of clean check images on which they must agree.
        allow_mismatch: Write the bundle even where they do not.
        keep_float: Names of layers to leave in float.
        seed: Draws the calibration images.
    """

    targets: tuple[str, ...] = ("cpu", "tensorrt")
    calibrator: str = "minmax"
    calibration_samples: int = 512
    check_samples: int = 256
    check_eps: float = 8 / 255
    min_agreement: float = 0.985
    allow_mismatch: bool = False
    keep_float: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for target in self.targets:
            if target not in PLANNERS.names():
                raise unknown("target", target, PLANNERS.names())
        if not self.targets:
            raise OptionError("give at least one --target; cpu and tensorrt are the usual ones")
        CALIBRATORS.build(self.calibrator)
        ThreatModel(eps=self.check_eps)
        if self.calibration_samples < 1 or self.check_samples < 1:
            raise OptionError("--calibration-samples and --check-samples must be at least 1")
        if not 0 <= self.min_agreement <= 1:
            raise OptionError(f"--min-agreement is a share in [0, 1], got {self.min_agreement}")


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """One int8 file before it is written."""

    target: str
    model: onnx.ModelProto
    plan: Plan
    facts: dict[str, Any] = field(default_factory=dict)


def export_int8(
    source: FloatModel,
    calibration: Split,
    out: Path,
    settings: ExportSettings,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a bundle with the float file and one int8 file per target.

    Args:
        source: The float classifier.
        calibration: A training split; ``calibration_samples`` images are drawn from it, stratified, and up to
            ``check_samples`` others for the agreement check.
        out: Folder of the bundle.
        settings: Targets, calibrator, checks.
        force: Replace an earlier bundle at ``out``.
        progress: Shows the stages.

    Raises:
        MismatchError: An int8 engine and its twin agree on too few clean images.
        LintError: A file breaks a rule of its target.
        QuantizationError: A tensor cannot be quantized.
    """
    progress = progress or Silent()
    drawn, check = draw(calibration, settings)
    with BundleWriter(out, force=force) as writer:
        quantized = quantize(source.model, drawn, settings, progress)
        writer.add("float", "", serialize(source.model))
        with tempfile.TemporaryDirectory(prefix="rctk-") as folder, progress.stage("check", len(quantized)) as step:
            for item in quantized:
                agreement = _checked(item, source, check, settings, Path(folder), progress)
                writer.add("int8", item.target, serialize(item.model), {**item.facts, "agreement": agreement.as_dict()})
                step(1)
        return writer.commit(
            name=out.name,
            input=source.input,
            classes=source.classes,
            model=source.origin,
            calibration=_calibration_facts(drawn, settings),
            versions=versions(),
        )


def draw(calibration: Split, settings: ExportSettings) -> tuple[Split, Split]:
    """Return the calibration images and the check images, disjoint wherever the split is large enough."""
    if not len(calibration):
        raise DataError(f"the calibration set {calibration.name} is empty; give --calibration a split with images")
    both = calibration.sample(settings.calibration_samples + settings.check_samples, settings.seed)
    drawn = both.sample(min(settings.calibration_samples, len(both)), settings.seed)
    used = set(drawn.indices.tolist())
    rest = [row for row, index in enumerate(both.indices.tolist()) if index not in used]
    check = both.take(np.asarray(rest, dtype=np.int64)) if rest else drawn
    return drawn, check.sample(settings.check_samples, settings.seed)


def quantize(
    model: onnx.ModelProto, calibration: Split, settings: ExportSettings, progress: Progress
) -> list[Quantized]:
    """Return the int8 form of ``model`` for every target, linted; calibration runs once for all of them."""
    graph = Graph(model)
    _check_keep_float(graph, settings.keep_float)
    targets = [target for target in settings.targets if target != MIRROR]
    if MIRROR in settings.targets and "tensorrt" not in targets:
        targets.append("tensorrt")
    plans = {target: PLANNERS.build(target).plan(graph, settings.keep_float) for target in targets}
    wanted = sorted({tensor for plan in plans.values() for tensor in plan.calibrated()})
    if not any(plan.layers for plan in plans.values()):
        reasons = {f"{kept.name}: {kept.reason}" for plan in plans.values() for kept in plan.kept_float}
        found = "; ".join(sorted(reasons)[:3]) or "it has no convolution, linear layer or matrix product"
        raise OptionError(f"no layer of this model can be int8 ({found}); export another model")
    calibrator = CALIBRATORS.build(settings.calibrator)
    with progress.stage("calibrate", len(calibration)) as step:
        ranges = calibrate(model, wanted, calibration.images, calibrator, step)
    made = [_quantized(target, model, plan, ranges) for target, plan in plans.items()]
    return [*made, *(_mirrored(item) for item in made if item.target == "tensorrt")]


def _check_keep_float(graph: Graph, names: Sequence[str]) -> None:
    layers = [node.name for node in graph.nodes if node.op_type in {"Conv", "Gemm", "Add"}]
    for name in names:
        if name not in layers:
            raise unknown("layer", name, layers)


def _quantized(target: str, model: onnx.ModelProto, plan: Plan, ranges: Ranges) -> Quantized:
    written = write_qdq(model, plan, ranges)
    onnx.checker.check_model(written, full_check=True)
    require_clean(written, target, [kept.name for kept in plan.kept_float])
    return Quantized(target=target, model=written, plan=plan, facts=_plan_facts(plan, ranges))


def _mirrored(item: Quantized) -> Quantized:
    written = mirror(item.model)
    onnx.checker.check_model(written, full_check=True)
    require_clean(written, MIRROR, [kept.name for kept in item.plan.kept_float])
    return Quantized(target=MIRROR, model=written, plan=item.plan, facts=item.facts)


def _plan_facts(plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        "int8_layers": [layer.name for layer in plan.layers],
        "kept_float": [asdict(kept) for kept in plan.kept_float],
        "ranges": {name: list(ranges[name]) for name in plan.calibrated()},
    }


def _checked(  # one check needs the file, its images and where to put it
    item: Quantized, source: FloatModel, check: Split, settings: ExportSettings, folder: Path, progress: Progress
) -> Agreement:
    path = folder / f"{item.target}.onnx"
    path.write_bytes(serialize(item.model))
    found = measure_agreement(
        Source(path=path, input=source.input, role="int8", target=item.target),
        check.images,
        settings.check_eps,
        optimize=item.target != "tensorrt",  # int8 activations: the optimiser leaves that file half float on x86
        seed=settings.seed,
    )
    if found.clean < settings.min_agreement:
        text = (
            f"int8 file for {item.target}: {found.engine} and the twin agree on {found.clean:.1%} of {found.samples} "
            f"clean images, less than {settings.min_agreement:.1%}"
        )
        if not settings.allow_mismatch:
            raise MismatchError(f"{text}; try --calibrator percentile, --keep-float LAYER, or pass --allow-mismatch")
        progress.note(f"{text} (allowed)")
    return found


def _calibration_facts(drawn: Split, settings: ExportSettings) -> dict[str, Any]:
    return {
        "data": drawn.name,
        "samples": len(drawn),
        "fingerprint": drawn.fingerprint,
        "calibrator": settings.calibrator,
        "seed": settings.seed,
    }
