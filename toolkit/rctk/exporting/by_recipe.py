"""A recipe as a whole: module steps, capture, graph steps, bundle."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import onnx

from rctk.checkpoint import LoadedModel
from rctk.compress.apply import apply_graph_steps, apply_recipe
from rctk.compress.figures import figures
from rctk.compress.recipe import Named, Recipe
from rctk.compress.step import Context, Form
from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, export_draft, first_draft
from rctk.exporting.files import check_form, check_layers
from rctk.exporting.float_model import FloatModel, captured
from rctk.exporting.quantized_checkpoint import QuantizedModel
from rctk.models.selection import select_instead_of_pad
from rctk.progress import Progress
from rctk_export.bundle import Bundle
from rctk_export.graph import Graph
from rctk_kernels.errors import OptionError

Model = LoadedModel | FloatModel | QuantizedModel
DECIDED = ("calibrator", "keep_float", "weights", "calibration_kind", "calibration_eps")
"""Settings of an export that a draft has decided already."""


def export_by_recipe(  # noqa: PLR0913  # what export_int8 takes, and the recipe with its images
    model: Model,
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
        model: A torch model; or a graph, or what earlier graph steps made, where the recipe has graph steps only.
        recipe: Checked already.
        context: Images, seed, progress and folder of the steps.
        calibration: As in :func:`rctk.exporting.export.export_int8`.
        out: Folder of the bundle.
        settings: Targets, calibration, checks.
        force: Replace an earlier bundle at ``out``.

    Raises:
        OptionError: The recipe has module steps, and ``model`` is a graph; or a step trains for another target.
    """
    check_settings(recipe, settings)
    if isinstance(model, QuantizedModel):
        check_grids(model, settings)
    made = quantize_by_recipe(model, recipe, context, settings)
    return export_quantized(made, calibration, out, settings, force=force, progress=context.progress)


def export_quantized(
    model: QuantizedModel,
    calibration: Split,
    out: Path,
    settings: ExportSettings,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write the bundle of a model that steps have quantized; arguments as in :func:`rctk.exporting.export.export_int8`.

    Raises:
        OptionError: A step has trained the grids of another target.
    """
    check_grids(model, settings)
    return export_draft(model.draft, model.parent, calibration, out, settings, force=force, progress=progress)


def quantize_by_recipe(model: Model, recipe: Recipe, context: Context, settings: ExportSettings) -> QuantizedModel:
    """Run a recipe and return the draft that it ends in, beside its float parent.

    Args:
        model: See :func:`export_by_recipe`.
        recipe: Checked already; without graph steps the draft is that of an export with ``settings``.
        context: Images, seed, progress and folder of the steps.
        settings: What the first draft begins with, unless earlier steps have begun one.
    """
    check_steps(model, recipe)
    if isinstance(model, QuantizedModel):
        check_decided(model, settings)
    _check_layers(model, recipe, settings)
    begun = _begun(model, recipe, context, settings)
    return begun.stepped(apply_graph_steps(begun.draft, recipe, context), recipe)


def check_steps(model: Model, recipe: Recipe) -> None:
    """Refuse module steps where the model is a graph already."""
    if not isinstance(model, LoadedModel):
        check_graph_steps(recipe, _name(model))


def check_graph_steps(recipe: Recipe, graph: str) -> None:
    """Refuse module steps, since the model of name ``graph`` is a graph already."""
    if recipe.module_steps:
        name = recipe.module_steps[0].name
        raise OptionError(
            f"{name} changes a torch module, and {graph} is a graph; give the checkpoint that it was made from, "
            f"or leave {name} out"
        )


def check_settings(recipe: Recipe, settings: ExportSettings) -> None:
    """Refuse settings of an export that do not go with a step, before one has trained for hours.

    Raises:
        OptionError: A target that a step does not train for, or cannot be written for; a setting that a step decides,
            or has no use for; a margin for a form that has none.
    """
    for named in recipe.graph_steps:
        form: Form = getattr(named.step, "form", "static")
        check_form(form, settings.targets)
        if form != "static" and settings.max_drop is not None:
            raise OptionError(f"--max-drop is for static int8, and {named.name} writes a {form} file; leave it out")
        _check_given(named, settings)
    trained = [(named.name, getattr(named.step, "target", None)) for named in recipe.graph_steps]
    _check_targets(trained, settings.targets)


def _check_given(named: Named, settings: ExportSettings) -> None:
    """Refuse settings that the step would set, or that the form it chooses has no use for."""
    decides: Mapping[str, str] = getattr(named.step, "decides", {})
    for setting in _given(settings):
        if setting in decides:
            own = decides[setting]
            there = f"write {named.name}:{own}={getattr(settings, setting)}" if own else "leave it out"
            raise OptionError(f"{_flag(setting)} has no effect beside {named.name}; {there}")


def check_grids(model: QuantizedModel, settings: ExportSettings) -> None:
    """Refuse targets that the grids of the model were not trained for, or that its form cannot be written for."""
    check_form(model.draft.form, settings.targets)
    _check_targets(_targets(model), settings.targets)


def check_decided(model: QuantizedModel, settings: ExportSettings) -> None:
    """Refuse settings that would have no effect, since steps have decided them in the model."""
    for setting in _given(settings):
        flag = _flag(setting)
        raise OptionError(
            f"{flag} is decided in {model.source or 'the model'}, which steps have quantized; leave {flag} out, or "
            f"begin with {model.parent.origin.get('source', 'the float model')}"
        )


def _given(settings: ExportSettings) -> list[str]:
    """Return those of ``DECIDED`` that differ from their defaults."""
    usual = {field.name: field.default for field in fields(settings)}
    return [name for name in DECIDED if getattr(settings, name) != usual[name]]


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _check_layers(model: Model, recipe: Recipe, settings: ExportSettings) -> None:
    """Refuse layers that no graph of the model will have, before steps have run for hours."""
    layers = [getattr(named.step, "layer", "") for named in recipe.graph_steps]
    names = [*settings.keep_float, *filter(None, layers)]
    if not names:
        return
    graph = Graph(float_graph(model))
    try:
        check_layers(graph, names)
    except OptionError:
        if not isinstance(model, LoadedModel):
            raise
        other = copy.deepcopy(model.module)
        if not select_instead_of_pad(other, model.input.shape):
            raise
        check_layers(Graph(captured(replace(model, module=other)).model), names)  # pruning makes convolutions of them


def float_graph(model: Model) -> onnx.ModelProto:
    """Return the float graph of a model as it is, its normalisation inside."""
    if isinstance(model, LoadedModel):
        return captured(model).model
    return (model.parent if isinstance(model, QuantizedModel) else model).model


def trained_target(model: QuantizedModel) -> str:
    """Return the target that a step has trained the grids for; ``cpu`` where any will do."""
    return next((target for _, target in _targets(model) if target), "cpu")


def _targets(model: QuantizedModel) -> list[tuple[str, Any]]:
    """Return each step with the target it trained for, if it trained for one."""
    return [(step["step"], step.get("target")) for step in model.parent.origin.get("recipe", ())]


def _check_targets(trained: Iterable[tuple[str, Any]], targets: Sequence[str]) -> None:
    for name, target in trained:
        fitting = {"tensorrt", "cpu-mirror"} if target == "tensorrt" else {target}
        if target is not None and not fitting.issuperset(targets):
            raise OptionError(
                f"{name} trains the grids of one target, {target}, and not of {', '.join(targets)}; "
                f"pass --target {target} alone, or another {name}:target="
            )


def _begun(model: Model, recipe: Recipe, context: Context, settings: ExportSettings) -> QuantizedModel:
    """Run the module steps; return the first draft of the result, its figures beside those of the model."""
    if isinstance(model, LoadedModel) and recipe.module_steps:
        small = apply_recipe(model, recipe, context)
        before = figures(model.module, model.input, context.validation).as_dict()
        after = figures(small.module, small.input, context.validation).as_dict()
        source = captured(replace(small, sha256=model.sha256, form=model.form))
        source = replace(source, origin={**source.origin, "before": before, "after": after})
        return QuantizedModel(draft=first_draft(source, settings), parent=source)
    if isinstance(model, QuantizedModel):
        return model
    source = captured(model) if isinstance(model, LoadedModel) else model
    return QuantizedModel(draft=first_draft(source, settings), parent=source)


def _name(model: Model) -> str:
    named = model.origin.get("source") if isinstance(model, FloatModel) else model.source
    return str(named or "the model")
