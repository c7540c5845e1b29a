"""``rctk compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.checkpoint import load_model, save_checkpoint
from rctk.cli.console import Bars, share, size, table
from rctk.cli.flags import DataFlags, ModelFlags, RecordFlags
from rctk.cli.places import check_file, check_folder
from rctk.cli.recipe_flags import RecipeFlags
from rctk.compress.apply import apply_recipe
from rctk.compress.figures import Figures, figures
from rctk.compress.images import read_images
from rctk.compress.step import Context
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk_kernels.errors import OptionError

NO_MODEL_FLAGS = ModelFlags()
NO_RECIPE_FLAGS = RecipeFlags()
NO_RECORD_FLAGS = RecordFlags()


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
    """Prune, train or distill a classifier by the steps of a recipe, to a checkpoint.

    MODEL is an rctk checkpoint, a state dict (with --arch) or safetensors. Finished steps are kept below --work: after
    Ctrl-C the same command goes on at the first unfinished one, and a changed recipe begins at the first change.

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
    steps.need_module_only()
    _check_out(out, model)
    folder = recipe.folder(out)
    check_folder(records, "--records")
    source = load_model(
        model, arch=flags.arch, input=flags.spec(), classes=flags.classes, trust_pickle=flags.trust_pickle
    )
    images = read_images(
        data.data, recipe.validation, input=source.input, samples=data.samples, seed=data.seed, download=data.download
    )
    context = Context(
        train=images.train,
        validation=images.validation,
        input=source.input,
        seed=data.seed,
        progress=Bars(),
        folder=folder,
    )
    before = figures(source.module, source.input, images.validation)
    small = apply_recipe(source, steps, context)
    after = figures(small.module, source.input, images.validation)
    origin = {"source": model.name, "sha256": source.sha256}
    extra = {"recipe": steps.as_list(), "parent": origin}
    save_checkpoint(out, small.module, arch=small.arch, input=small.input, classes=small.classes, extra=extra)
    _show(out, before, after, images.validation.name)
    Record.of(
        "compress",
        {"name": out.name, "arch": small.arch, "parent": origin},
        {"recipe": steps.as_list(), "data": images.train.name, "validation": images.validation.name, "seed": data.seed},
        {"before": before.as_dict(), "after": after.as_dict()},
        machine=machine_facts(),
        versions=versions(),
    ).append_to(records)


def _check_out(out: Path, model: Path) -> None:
    if out.suffix == ".onnx":
        raise OptionError(f"--out {out} names an ONNX file; a checkpoint ends in .pt or .safetensors")
    if out.exists() and model.exists() and out.samefile(model):
        raise OptionError(f"--out {out} is the model itself; name another file, so that the recipe can be run again")
    check_file(out, "--out")


def _show(out: Path, before: Figures, after: Figures, name: str) -> None:
    rows = [
        ("parameters", f"{before.cost.parameters:,}", f"{after.cost.parameters:,}"),
        ("not zero", f"{before.cost.nonzero:,}", f"{after.cost.nonzero:,}"),
        ("multiplications", f"{before.cost.macs:,}", f"{after.cost.macs:,}"),
        ("tensors", size(before.cost.size_bytes), size(after.cost.size_bytes)),
        (f"clean, {after.samples} of {name}", share(before.clean_accuracy), share(after.clean_accuracy)),
    ]
    table(f"checkpoint {out}", ("what", "before", "after"), rows)
    print(f"next: rctk export --int8 {out} --calibration SET:train")
