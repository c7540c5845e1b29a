"""``rctk export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rctk.checkpoint import LoadedModel
from rctk.cli.console import Bars, share, size, table
from rctk.cli.flags import Fraction, ModelFlags, RecordFlags, Repeated, Switch, Whole, fraction, whole
from rctk.cli.places import check_folder
from rctk.cli.read_model import read_model
from rctk.cli.recipe_flags import RecipeFlags
from rctk.compress.images import read_images
from rctk.compress.step import Context
from rctk.data import Split, read_split
from rctk.data.leaks import tell_calibration
from rctk.data.read import need_split
from rctk.exporting.by_recipe import Model, check_decided, export_by_recipe, export_quantized
from rctk.exporting.export import ExportSettings, export_int8
from rctk.exporting.float_model import captured
from rctk.exporting.quantized_checkpoint import QuantizedModel
from rctk.machine import machine_facts, versions
from rctk.progress import Progress
from rctk.quantize.calibrate import Kind
from rctk.quantize.mixed import margin_words
from rctk.records import Record
from rctk_export.bundle import Bundle
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec

NO_MODEL_FLAGS = ModelFlags()
NO_RECIPE_FLAGS = RecipeFlags()
NO_RECORD_FLAGS = RecordFlags()


def export_(  # noqa: PLR0913  # every parameter is a flag
    model: Path,
    /,
    *,
    int8: Annotated[bool, Parameter(negative=(), show_default=False)] = True,
    calibration: str,
    target: Annotated[tuple[str, ...], Repeated] = ExportSettings.targets,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    calibrator: str = ExportSettings.calibrator,
    calibration_samples: Whole = ExportSettings.calibration_samples,
    calibration_kind: Kind = ExportSettings.calibration_kind,
    calibration_eps: Fraction = ExportSettings.calibration_eps,
    weights: Literal["per-channel", "per-tensor"] = ExportSettings.weights,
    keep_float: Annotated[tuple[str, ...], Repeated] = (),
    max_drop: Annotated[float | None, Parameter(converter=fraction)] = ExportSettings.max_drop,
    check_samples: Whole = ExportSettings.check_samples,
    check_eps: Fraction = ExportSettings.check_eps,
    min_agreement: float = ExportSettings.min_agreement,
    allow_mismatch: Switch = False,
    force: Switch = False,
    download: Switch = False,
    seed: Whole = ExportSettings.seed,
    recipe: RecipeFlags = NO_RECIPE_FLAGS,
    data: str | None = None,
    samples: Annotated[int | None, Parameter(converter=whole)] = None,
    records: Path = NO_RECORD_FLAGS.out,
    flags: ModelFlags = NO_MODEL_FLAGS,
) -> None:
    """Compress a classifier to int8 and write a bundle.

    With --recipe or --step the torch module is pruned, trained or distilled first, then captured, and steps on its
    graph decide how it is quantized. After Ctrl-C the same command goes on behind the last finished step.

    MODEL is an rctk checkpoint, a state dict (with --arch), TorchScript, a torch.export .pt2, safetensors, a float
    .onnx, or what rctk compress has quantized. TorchScript, .pt2 and --arch FILE.py run code: use files you trust.

    Example: rctk export --int8 model.pt --calibration cifar10:train -o model-int8

    Args:
        model: The model file.
        int8: Quantize to 8-bit integers (the only precision so far).
        calibration: Training split whose images set the ranges, such as cifar10:train.
        target: Int8 flavour to write; may be repeated. tensorrt brings its cpu-mirror along.
        out: Folder of the bundle; MODEL-int8 by default.
        calibrator: How ranges are chosen: minmax, moving-average, percentile:p=99.99, entropy or mse.
        calibration_samples: Images that calibration sees.
        calibration_kind: Calibrate with clean images, adversarial ones (adv), or every other one adversarial (mix).
        calibration_eps: Budget of those adversarial images.
        weights: One weight scale for each output channel, or one for the whole tensor.
        keep_float: Layer to leave in float; may be repeated.
        max_drop: Keep the fewest layers float with which clean accuracy, and robust accuracy at --check-eps, fall by no
            more, such as 0.005.
        check_samples: Further images on which each int8 file is compared with its twin.
        check_eps: Budget of the adversarial images among them.
        min_agreement: Least share of clean check images on which file and twin must agree.
        allow_mismatch: Write the bundle even where they do not.
        force: Replace an earlier bundle.
        download: Fetch a public data set that is not there yet.
        seed: Draws the calibration images.
        recipe: The steps.
        data: Images that steps learn from; those of --calibration by default.
        samples: Use so many of them, drawn with classes in proportion; all by default.
        records: Folder whose records.jsonl the result is appended to.
        flags: How to read the model file.
    """
    del int8
    folder = out or model.with_name(f"{model.stem}-int8")
    check_folder(folder.parent, "--out")
    check_folder(records, "--records")
    BundleWriter(folder, force=force).refuse_occupied()
    progress = Bars()
    settings = ExportSettings(
        targets=target,
        calibrator=calibrator,
        calibration_samples=calibration_samples,
        calibration_kind=calibration_kind,
        calibration_eps=calibration_eps,
        weights=weights,
        keep_float=keep_float,
        max_drop=max_drop,
        check_samples=check_samples,
        check_eps=check_eps,
        min_agreement=min_agreement,
        allow_mismatch=allow_mismatch,
        seed=seed,
    )
    for flag, name in (("--calibration", calibration), ("--data", data)):
        if name is not None:
            need_split(name, flag)
    steps = recipe.read()
    read = read_model(model, flags)
    if steps is None:
        split = _calibration(calibration, settings, read.input, download=download)
        tell_calibration(split, settings.calibration_samples, progress)
        bundle = _without_steps(read, split, folder, settings, force=force, progress=progress)
    else:
        work = recipe.folder(folder)
        images = read_images(
            data or calibration,
            recipe.validation,
            input=read.input,
            samples=samples,
            seed=seed,
            download=download,
            progress=progress,
        )
        context = Context(
            train=images.train,
            validation=images.validation,
            input=read.input,
            seed=seed,
            progress=progress,
            folder=work,
        )
        split = images.train if data is None else _calibration(calibration, settings, read.input, download=download)
        tell_calibration(split, settings.calibration_samples, progress)
        bundle = export_by_recipe(read, steps, context, split, folder, settings, force=force)
    _show(bundle)
    Record.of(
        "export",
        {"name": bundle.name, "sha256": bundle.sha256},
        {**bundle.model, **bundle.calibration},
        {"files": [_file_values(bundle, file.role, file.target) for file in bundle.files]},
        machine=machine_facts(),
        versions=versions(),
    ).append_to(records)


def _without_steps(
    model: Model, calibration: Split, out: Path, settings: ExportSettings, *, force: bool, progress: Progress
) -> Bundle:
    if isinstance(model, QuantizedModel):
        check_decided(model, settings)
        return export_quantized(model, calibration, out, settings, force=force, progress=progress)
    if isinstance(model, LoadedModel):
        with progress.stage("capture", 1) as step:
            model = captured(model)
            step(1)
    return export_int8(model, calibration, out, settings, force=force, progress=progress)


def _calibration(name: str, settings: ExportSettings, spec: InputSpec, *, download: bool) -> Split:
    wanted = settings.images_wanted
    return read_split(name, samples=wanted, seed=settings.seed, input=spec, download=download)


def _file_values(bundle: Bundle, role: str, target: str) -> dict[str, object]:
    file = bundle.file(role, target)
    agreement = file.facts.get("agreement", {})
    return {
        "role": file.role,
        "target": file.target,
        "size_bytes": file.size_bytes,
        "agreement_float": agreement.get("parent"),
        "agreement_clean": agreement.get("clean"),
        "agreement_adversarial": agreement.get("adversarial"),
        "flip_rate": agreement.get("flip_rate"),
        "samples": agreement.get("samples"),
    }


def _show(bundle: Bundle) -> None:
    rows = []
    for file in bundle.files:
        agreement, kept = file.facts.get("agreement", {}), file.facts.get("kept_float", [])
        rows.append(
            (
                file.path,
                size(file.size_bytes),
                len(file.facts["int8_layers"]) if "int8_layers" in file.facts else "-",
                ", ".join(f"{k['name']} ({k['op']})" for k in kept) or "-",
                share(agreement.get("parent")),
                share(agreement.get("clean")),
                share(agreement.get("adversarial")),
                "-" if "flip_rate" not in agreement else f"{agreement['flip_rate']:.2%}",
            )
        )
    columns = (
        "file",
        "size",
        "int8 layers",
        "kept float",
        "as float",
        "twin agrees, clean",
        "adversarial",
        "codes flipped",
    )
    table(f"bundle {bundle.path}", columns, rows)
    margin = next(file for file in bundle.files if file.role == "int8").facts.get("steps", {}).get("quant.mixed")
    if margin:
        print(margin_words(**margin))
    print(f"next: rctk compare {bundle.path} --data SET:test --eps 8/255")
