"""``rctk compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from rctk.checkpoint import LoadedModel, save_checkpoint
from rctk.cli.console import Bars, share, size, table
from rctk.cli.flags import DataFlags, ModelFlags, RecordFlags
from rctk.cli.next_step import next_export
from rctk.cli.places import check_checkpoint, check_folder
from rctk.cli.read_model import read_model
from rctk.cli.recipe_flags import RecipeFlags
from rctk.compress.apply import apply_recipe
from rctk.compress.figures import Figures, figures
from rctk.compress.images import read_images
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context
from rctk.exporting.by_recipe import Model, check_steps, float_graph, quantize_by_recipe, trained_target
from rctk.exporting.draft_figures import GraphFigures, graph_figures, quantized_figures
from rctk.exporting.export import ExportSettings
from rctk.exporting.quantized_checkpoint import save_quantized
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk_kernels.errors import OptionError

NO_MODEL_FLAGS = ModelFlags()
NO_RECIPE_FLAGS = RecipeFlags()
NO_RECORD_FLAGS = RecordFlags()


class Outcome(NamedTuple):
    """What the record says: about the subject, and its figures before and behind the steps."""

    subject: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]


def compress_(  # every parameter is a flag
    model: Path,
    /,
    *,
    data: DataFlags,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    recipe: RecipeFlags = NO_RECIPE_FLAGS,
    records: Path = NO_RECORD_FLAGS.out,
    flags: ModelFlags = NO_MODEL_FLAGS,
) -> None:
    """Prune, train, distill or quantize a classifier by the steps of a recipe, to a checkpoint.

    MODEL is an rctk checkpoint, a state dict (with --arch) or safetensors; where all steps are quant.*, also a float
    .onnx or what an earlier rctk compress quantized. A recipe that ends in quant.* steps gives a quantized checkpoint,
    of which rctk export makes the bundle. Finished steps are kept below --work: after Ctrl-C the same command goes on
    at the first unfinished one, and a changed recipe begins at the first change.

    Example: rctk compress net.pt --data cifar10:train --step prune.depgraph:ratio=0.3 --step train.finetune -o small.pt

    Args:
        model: The model file.
        data: Images that the steps learn from.
        out: Checkpoint file.
        recipe: The steps.
        records: Folder whose records.jsonl the result is appended to.
        flags: How to read the model file.
    """
    steps = recipe.read()
    if steps is None:
        raise OptionError("rctk compress needs --recipe FILE or --step step:key=value; see `rctk list steps`")
    _check_out(out, model)
    folder = recipe.folder(out)
    check_folder(records, "--records")
    source = read_model(model, flags)
    check_steps(source, steps)
    progress = Bars()
    images = read_images(
        data.data,
        recipe.validation,
        input=source.input,
        samples=data.samples,
        seed=data.seed,
        download=data.download,
        progress=progress,
    )
    context = Context(
        train=images.train,
        validation=images.validation,
        input=source.input,
        seed=data.seed,
        progress=progress,
        folder=folder,
    )
    if isinstance(source, LoadedModel) and not steps.graph_steps:
        subject, before, after = _module(source, steps, context, out)
    else:
        subject, before, after = _graph(source, steps, context, out)
    Record.of(
        "compress",
        {"name": out.name, **subject},
        {"recipe": steps.as_list(), "data": images.train.name, "validation": images.validation.name, "seed": data.seed},
        {"before": before, "after": after},
        machine=machine_facts(),
        versions=versions(),
    ).append_to(records)


def _module(source: LoadedModel, steps: Recipe, context: Context, out: Path) -> Outcome:
    before = figures(source.module, source.input, context.validation)
    small = apply_recipe(source, steps, context)
    after = figures(small.module, source.input, context.validation)
    origin = {"source": Path(source.source).name, "sha256": source.sha256}
    extra = {"recipe": steps.as_list(), "parent": origin}
    save_checkpoint(out, small.module, arch=small.arch, input=small.input, classes=small.classes, extra=extra)
    _show(out, before, after, context.validation.name, small.arch)
    return Outcome({"arch": small.arch, "parent": origin}, before.as_dict(), after.as_dict())


def _graph(source: Model, steps: Recipe, context: Context, out: Path) -> Outcome:
    settings = ExportSettings(seed=context.seed)
    made = quantize_by_recipe(source, steps, context, settings)
    save_quantized(out, made)
    target, drawn = trained_target(made), context.train.sample(settings.calibration_samples, context.seed)
    before = graph_figures(float_graph(source), context.validation)
    after = quantized_figures(made, target, drawn, context.validation, context.progress, seed=context.seed)
    _show_graph(out, before, after, context.validation.name, target)
    origin = made.parent.origin
    subject = {"arch": origin.get("arch", ""), "parent": {key: origin[key] for key in ("source", "sha256")}}
    return Outcome({**subject, "target": target}, before.as_dict(), after.as_dict())


def _check_out(out: Path, model: Path) -> None:
    check_checkpoint(out, "--out")
    if out.exists() and model.exists() and out.samefile(model):
        raise OptionError(f"--out {out} is the model itself; name another file, so that the recipe can be run again")


def _show(out: Path, before: Figures, after: Figures, name: str, arch: str) -> None:
    rows = [
        ("parameters", f"{before.cost.parameters:,}", f"{after.cost.parameters:,}"),
        ("not zero", f"{before.cost.nonzero:,}", f"{after.cost.nonzero:,}"),
        ("multiplications", f"{before.cost.macs:,}", f"{after.cost.macs:,}"),
        ("tensors", size(before.cost.size_bytes), size(after.cost.size_bytes)),
        (f"clean, {after.samples} of {name}", share(before.clean_accuracy), share(after.clean_accuracy)),
    ]
    table(f"checkpoint {out}", ("what", "before", "after"), rows)
    print(next_export(out, arch))


def _show_graph(out: Path, before: GraphFigures, after: GraphFigures, name: str, target: str) -> None:
    macs = ["-" if each.macs is None else f"{each.macs:,}" for each in (before, after)]
    rows = [
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}"),
        ("zero weights", share(before.zero_weights), share(after.zero_weights)),
        ("multiplications", *macs),
        ("ONNX file", size(before.file_bytes), size(after.file_bytes)),
        (f"clean, {after.samples} of {name}", share(before.clean_accuracy), share(after.clean_accuracy)),
    ]
    table(f"quantized checkpoint {out}", ("what", "float before", f"int8 file for {target}"), rows)
    print(f"next: rctk export --int8 {out} --calibration SET:train --target {target}")
