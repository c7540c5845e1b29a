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
from rctk.compress.recipe import Named, Recipe
from rctk.compress.step import Context, Draft, GraphStep, ModuleStep
from rctk.prune.zeros import hold_zeros
from rctk.train.step import check_training
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
        ModelError: The model brings its own graph, or a step made something that no checkpoint can hold.
    """
    if not recipe.module_steps:
        return model
    check_here(recipe)
    _need_architecture(model)
    with _folder(context) as folder:
        return _run(model, recipe, replace(context, parent=model.module), Kept(folder=folder))


def apply_graph_steps(draft: Draft, recipe: Recipe, context: Context) -> Draft:
    """Run the graph steps on a captured model; ``draft`` stays as it is.

    As with module steps, every step begins with what can be read back from a file.

    Args:
        draft: Float graph and what is decided about it.
        recipe: Its module steps are left to :func:`apply_recipe`.
        context: ``folder`` is where finished steps are kept; ``None`` keeps them until the end only.
    """
    check_here(recipe)
    with _folder(context) as folder:
        return _run_graph(draft, recipe, context, Kept(folder=folder))


def check_here(recipe: Recipe) -> None:
    """Refuse what a step of the recipe could not do on this machine, before the steps in front of it take hours."""
    for number, named in enumerate(recipe.steps, start=1):
        _check_step(named, f"step {number} of {len(recipe.steps)}, {named.name}")


def _check_step(named: Named, where: str) -> None:
    try:
        check_training(named.step)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error


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
    hold_zeros(model.module)  # 2:4 zeros of an earlier step stay; the hooks that keep them are in no checkpoint
    module = cast("ModuleStep", named.step)(model.module, context)
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
