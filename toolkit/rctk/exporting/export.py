"""Float graph in, bundle out: calibrate, write a Q/DQ file per target, lint it, measure it against its twin."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from rctk.compress.step import Draft
from rctk.data.split import Split
from rctk.exporting.agreement import Agreement, Classes, classes_of, measure_agreement
from rctk.exporting.evaluation_file import Scores, measure_scores
from rctk.exporting.files import MIRROR, Quantized, int8_files
from rctk.exporting.float_model import FloatModel
from rctk.machine import versions
from rctk.progress import Progress, Silent
from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Images, Kind
from rctk.quantize.mixed import fewest_float
from rctk.quantize.sensitivity import Probe
from rctk.threat import ThreatModel
from rctk_export.bundle import Bundle
from rctk_export.bundle_writer import BundleWriter
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import serialize
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.formats import Formats
from rctk_export.registry import unknown
from rctk_kernels.errors import DataError, MismatchError, OptionError

USUAL = 0.9
"""Share of images that keep their class in 8 bits, less a good deal; below it something is worth a look."""
DROP_SAMPLES = 512
"""Images on which ``max_drop`` is measured, besides those of calibration."""

__all__ = ["MIRROR", "ExportSettings", "Quantized", "draw", "export_draft", "export_int8", "first_draft", "quantize"]


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
        weights: One weight scale per output channel, or one per tensor.
        calibration_kind: Calibration sees ``clean`` images, adversarial ones (``adv``), or half of each (``mix``).
        calibration_eps: Budget of the adversarial ones, linf.
        max_drop: Keep the fewest layers float with which clean and robust accuracy (``check_eps``) fall by no more than
            this share on images that calibration did not see; None quantizes all it can.
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
    weights: Literal["per-channel", "per-tensor"] = "per-channel"
    calibration_kind: Kind = "clean"
    calibration_eps: float = 8 / 255
    max_drop: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for target in self.targets:
            if target not in PLANNERS.names():
                raise unknown("target", target, PLANNERS.names())
        if not self.targets:
            raise OptionError("give at least one --target; cpu and tensorrt are the usual ones")
        CALIBRATORS.build(self.calibrator)
        ThreatModel(eps=self.check_eps)
        ThreatModel(eps=self.calibration_eps)
        if self.calibration_samples < 1 or self.check_samples < 1:
            raise OptionError("--calibration-samples and --check-samples must be at least 1")
        if not 0 <= self.min_agreement <= 1:
            raise OptionError(f"--min-agreement is a share in [0, 1], got {self.min_agreement}")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise OptionError(f"--max-drop is a share in [0, 1), got {self.max_drop}")

    @property
    def images_wanted(self) -> int:
        """How many training images an export uses at most."""
        return self.calibration_samples + max(self.check_samples, 0 if self.max_drop is None else DROP_SAMPLES)


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
    draft = first_draft(source, settings)
    return export_draft(draft, source, calibration, out, settings, force=force, progress=progress)


def export_draft(  # noqa: PLR0913  # a draft, its parent, and what export_int8 takes
    draft: Draft,
    source: FloatModel,
    calibration: Split,
    out: Path,
    settings: ExportSettings,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a bundle like :func:`export_int8`, of a draft that further steps have changed.

    Args:
        draft: Begun by :func:`first_draft`; calibrator, widths and layers in float are the draft's, not those of
            ``settings``.
        source: The float parent, written beside the int8 files.
        calibration: See :func:`export_int8`.
        out: Folder of the bundle.
        settings: Targets, numbers of images, checks, seed.
        force: Replace an earlier bundle at ``out``.
        progress: Shows the stages.
    """
    progress = progress or Silent()
    drawn, check = draw(calibration, settings)
    if settings.max_drop is not None:
        unseen = without(calibration, drawn).sample(DROP_SAMPLES, settings.seed)
        probe = Probe(draft.model, unseen, eps=settings.check_eps, seed=settings.seed)
        draft = fewest_float(draft, settings.targets, drawn, probe, settings.max_drop, progress)
    with BundleWriter(out, force=force) as writer:
        quantized = int8_files(draft, settings.targets, drawn, progress, seed=settings.seed)
        writer.add("float", "", serialize(source.model))
        parent = classes_of(OnnxModule(source.model), check.images)
        with tempfile.TemporaryDirectory(prefix="rctk-") as folder, progress.stage("check", len(quantized)) as step:
            for item in quantized:
                agreement = _checked(item, source, check, settings, Path(folder), progress, parent=parent)
                scores = _scores(item, source, check, Path(folder), progress)
                found = {"agreement": agreement.as_dict(), "score_resolution": scores.resolution}
                writer.add("int8", item.target, serialize(item.model), {**item.facts, **found})
                if scores.variant is not None:
                    writer.add("evaluation", item.target, scores.variant, scores.facts)
                step(1)
        return writer.commit(
            name=out.name,
            input=source.input,
            classes=source.classes,
            model=source.origin,
            calibration=_calibration_facts(drawn, draft, settings),
            versions=versions(),
        )


def draw(calibration: Split, settings: ExportSettings) -> tuple[Split, Split]:
    """Return the calibration images and the check images, disjoint wherever the split is large enough."""
    if not len(calibration):
        raise DataError(f"the calibration set {calibration.name} is empty; give --calibration a split with images")
    both = calibration.sample(settings.calibration_samples + settings.check_samples, settings.seed)
    drawn = both.sample(min(settings.calibration_samples, len(both)), settings.seed)
    return drawn, without(both, drawn).sample(settings.check_samples, settings.seed)


def without(split: Split, used: Split) -> Split:
    """Return ``split`` without the images of its part ``used``; that part itself where nothing else is left."""
    taken = set(used.indices.tolist())
    rest = [row for row, index in enumerate(split.indices.tolist()) if index not in taken]
    return split.take(np.asarray(rest, dtype=np.int64)) if rest else used


def first_draft(source: FloatModel, settings: ExportSettings) -> Draft:
    """Return the draft that steps of a recipe start from."""
    return Draft(
        model=source.model,
        input=source.input,
        formats=Formats(per_channel=settings.weights == "per-channel"),
        calibrator=settings.calibrator,
        images=Images(kind=settings.calibration_kind, eps=settings.calibration_eps),
        keep_float=settings.keep_float,
    )


def quantize(
    model: onnx.ModelProto, calibration: Split, settings: ExportSettings, progress: Progress
) -> list[Quantized]:
    """Return the int8 form of ``model`` for every target, without further steps; see :func:`int8_files`."""
    _, channels, height, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    source = FloatModel(model=model, input=InputSpec(channels=channels, height=height, width=width), classes=())
    return int8_files(first_draft(source, settings), settings.targets, calibration, progress, seed=settings.seed)


def _checked(  # noqa: PLR0913  # one check needs the file, its images and where to put it
    item: Quantized,
    source: FloatModel,
    check: Split,
    settings: ExportSettings,
    folder: Path,
    progress: Progress,
    *,
    parent: Classes,
) -> Agreement:
    path = folder / f"{item.target}.onnx"
    path.write_bytes(serialize(item.model))
    found = measure_agreement(
        Source(path=path, input=source.input, role="int8", target=item.target),
        check.images,
        settings.check_eps,
        optimize=item.target != "tensorrt",  # int8 activations: the optimiser leaves that file half float on x86
        seed=settings.seed,
        parent=parent,
    )
    if found.parent is not None and found.parent < USUAL:
        static = "`rctk inspect --sensitivity` finds the layers, --max-drop 0.01 keeps them float"
        remedy = "take more bits, or name layers with --keep-float" if "form" in item.facts else static
        progress.note(
            f"int8 file for {item.target}: {found.parent:.1%} of {found.samples} clean images keep the class that the "
            f"float model gives them; {remedy}"
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


def _scores(item: Quantized, source: FloatModel, check: Split, folder: Path, progress: Progress) -> Scores:
    """Measure the logits' resolution, and make the evaluation variant of the file that :func:`_checked` wrote."""
    file = Source(path=folder / f"{item.target}.onnx", input=source.input, role="int8", target=item.target)
    found = measure_scores(item.model, file, check.images, optimize=item.target != "tensorrt")
    if found.problem:
        progress.note(f"no evaluation variant for {item.target}: {found.problem}")
    return found


def _calibration_facts(drawn: Split, draft: Draft, settings: ExportSettings) -> dict[str, Any]:
    facts = {
        "data": drawn.name,
        "samples": len(drawn),
        "fingerprint": drawn.fingerprint,
        "calibrator": draft.calibrator,
        "images": draft.images.kind,
        "seed": settings.seed,
    }
    return facts if draft.images.kind == "clean" else {**facts, "eps": draft.images.eps, "steps": draft.images.steps}
