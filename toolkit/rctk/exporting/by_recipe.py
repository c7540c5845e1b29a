"""A recipe as a whole: module steps, capture, graph steps, bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rctk.checkpoint import LoadedModel
from rctk.compress.apply import apply_graph_steps, apply_recipe
from rctk.compress.figures import figures
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context
from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, export_draft, first_draft
from rctk.exporting.float_model import FloatModel, captured
from rctk_export.bundle import Bundle
from rctk_kernels.errors import OptionError


def export_by_recipe(  # noqa: PLR0913  # what export_int8 takes, and the recipe with its images
    model: LoadedModel | FloatModel,
    recipe: Recipe,
    context: Context,
    calibration: Split,
    out: Path,
    settings: ExportSettings,
    *,
    force: bool = False,
) -> Bundle:
    """Run a recipe and write the bundle; its manifest holds every step, and what module steps did to the figures.

    Args:
        model: A torch model, or a graph where the recipe has graph steps only.
        recipe: Checked already.
        context: Images, seed, progress and folder of the steps.
        calibration: As in :func:`rctk.exporting.export.export_int8`.
        out: Folder of the bundle.
        settings: Targets, calibration, checks.
        force: Replace an earlier bundle at ``out``.

    Raises:
        OptionError: The recipe has module steps, and ``model`` is a graph; or a step trains for another target.
    """
    check_targets(recipe, settings)
    source, facts = _float(model, recipe, context)
    draft = apply_graph_steps(first_draft(source, settings), recipe, context)
    source = replace(source, origin={**source.origin, **facts, "recipe": recipe.as_list()})
    return export_draft(draft, source, calibration, out, settings, force=force, progress=context.progress)


def check_targets(recipe: Recipe, settings: ExportSettings) -> None:
    """Refuse targets that a quantization-aware step does not train for, before it has trained for hours."""
    for named in recipe.graph_steps:
        target = getattr(named.step, "target", None)
        fitting = {"tensorrt", "cpu-mirror"} if target == "tensorrt" else {target}
        if target is not None and not fitting.issuperset(settings.targets):
            raise OptionError(
                f"{named.name} trains the grids of one target, {target}, and not of {', '.join(settings.targets)}; "
                f"pass --target {target} alone, or another {named.name}:target="
            )


def _float(model: LoadedModel | FloatModel, recipe: Recipe, context: Context) -> tuple[FloatModel, dict[str, Any]]:
    """Run the module steps; return the graph of the result, and its figures beside those of the model."""
    if not recipe.module_steps:
        return (model if isinstance(model, FloatModel) else captured(model)), {}
    if isinstance(model, FloatModel):
        name = recipe.module_steps[0].name
        raise OptionError(
            f"{name} changes a torch module, and {model.origin.get('source', 'the model')} is a graph; give the "
            f"checkpoint that it was made from, or leave {name} out"
        )
    small = apply_recipe(model, recipe, context)
    facts = {
        "before": figures(model.module, model.input, context.validation).as_dict(),
        "after": figures(small.module, small.input, context.validation).as_dict(),
    }
    return captured(replace(small, sha256=model.sha256, form=model.form)), facts
