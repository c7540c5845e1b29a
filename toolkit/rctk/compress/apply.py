"""Runs the steps of a recipe; a stopped one goes on with the same result."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from rctk.checkpoint import LoadedModel
from rctk.compress.kept import Kept, first_key, graph_key, next_key, save_compressed
from rctk.compress.order import check_order, settled_in
from rctk.compress.ready import check_ready
from rctk.compress.recipe import Named, Recipe
from rctk.compress.step import Context, Draft, GraphStep, ModuleStep
from rctk.prune.zeros import hold_zeros, patterned
from rctk_kernels.errors import ModelError, OptionError


def apply_recipe(model: LoadedModel, recipe: Recipe, context: Context) -> LoadedModel:
    """Run the module steps and return the model as its last checkpoint holds it; ``model`` stays as it is.

    Every step begins with what was read back from the checkpoint of the step before. So a recipe that was stopped and
    goes on cannot differ from one that ran through, on one machine with one number of threads.

    Args:
        model: What :func:`rctk.checkpoint.load_model` read.
        recipe: Its graph steps are left to :func:`apply_graph_steps`.
        context: ``folder`` is where finished steps are kept; ``None`` keeps them until the end only.

    Raises:
        OptionError: The recipe has graph steps only, or a step could not do its work.
        ModelError: The model brings its own graph, or a step made something that no checkpoint can hold.
    """
    if not recipe.module_steps:
        raise OptionError(
            f"{recipe.steps[0].name} works on a graph, and apply_recipe on a module; use export_by_recipe, or "
            "quantize_by_recipe, of rctk.exporting.by_recipe"
        )
    _need_architecture(model)
    context = replace(context, parent=model.module)
    check_ready(recipe.steps, context, model.module)
    with _folder(context) as folder:
        return _run(model, recipe, context, Kept(folder=folder))


def apply_graph_steps(draft: Draft, recipe: Recipe, context: Context) -> Draft:
    """Run the graph steps on a captured model; ``draft`` stays as it is.

    As with module steps, every step begins with what can be read back from a file.

    Args:
        draft: Float graph and what is decided about it.
        recipe: Its module steps are left to :func:`apply_recipe`.
        context: ``folder`` is where finished steps are kept; ``None`` keeps them until the end only.

    Raises:
        OptionError: A step would undo what is decided already, or could not do its work.
    """
    check_order(recipe.graph_steps, settled_in(draft))
    check_ready(recipe.steps, context)
    with _folder(context) as folder:
        return _run_graph(draft, recipe, context, Kept(folder=folder))


def _run(model: LoadedModel, recipe: Recipe, context: Context, kept: Kept) -> LoadedModel:
    key = first_key(model, context)
    current = replace(model, module=copy.deepcopy(model.module))
    for number, named in enumerate(recipe.module_steps, start=1):
        key = next_key(key, named)
        path = kept.path(number, named, key)
        found = kept.find(path, model, key)
        _announce(context, recipe, number, more=" (kept from an earlier run)" if found else "")
        if found is None:
            scratch = kept.scratch(number, named, key)
            changed = _changed(current, named, replace(context, folder=scratch))
            found = save_compressed(path, changed, recipe.steps[:number], key=key)
            shutil.rmtree(scratch, ignore_errors=True)
        current = found
    return current


def _run_graph(draft: Draft, recipe: Recipe, context: Context, kept: Kept) -> Draft:
    key = graph_key(draft, context)
    for number, named in enumerate(recipe.graph_steps, start=len(recipe.module_steps) + 1):
        key = next_key(key, named)
        path = kept.path(number, named, key)
        found = kept.find_draft(path, key)
        _announce(context, recipe, number, more=" (kept from an earlier run)" if found else "")
        if found is None:
            scratch = kept.scratch(number, named, key)
            made = cast("GraphStep", named.step)(draft, replace(context, folder=scratch))
            found = kept.keep_draft(path, made, key)
            shutil.rmtree(scratch, ignore_errors=True)
        draft = found
    return draft


def _changed(model: LoadedModel, named: Named, context: Context) -> LoadedModel:
    before = patterned(model.module)
    if getattr(named.step, "keep_zeros", True):
        hold_zeros(model.module)  # 2:4 zeros of an earlier step stay; the hooks that keep them are in no checkpoint
    module = cast("ModuleStep", named.step)(model.module, context)
    lost = sorted(before - patterned(module))
    if lost:
        context.progress.note(f"{named.name} took the 2:4 pattern of {', '.join(lost)}; prune.nm24 makes it again")
    return replace(model, module=module.cpu().eval())


def _announce(context: Context, recipe: Recipe, number: int, *, more: str = "") -> None:
    context.progress.note(f"step {number} of {len(recipe.steps)}: {recipe.steps[number - 1].short}{more}")


@contextmanager
def _folder(context: Context) -> Iterator[Path]:
    if context.folder is not None:
        yield context.folder
        return
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        yield Path(folder)


def _need_architecture(model: LoadedModel) -> None:
    """Refuse what cannot be built again from text: captured graphs, and pickled modules."""
    if model.form in {"torchscript", "pt2", "pickle"}:
        raise ModelError(
            f"{model.source} brings its own graph ({model.form}), which module steps cannot change; save its weights "
            "(`torch.save(model.state_dict(), ...)`) and give --arch FILE.py:FACTORY"
        )
