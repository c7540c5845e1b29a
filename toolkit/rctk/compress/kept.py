"""Files of finished steps, found again by everything that went before them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from rctk.checkpoint import LoadedModel, load_model, save_checkpoint
from rctk.compress.draft_file import draft_contents, draft_digest, draft_of
from rctk.compress.recipe import Named
from rctk.compress.step import Context, Draft
from rctk.data import read_split
from rctk.machine import versions
from rctk.model_io.contents import read_contents
from rctk.model_io.tensors import read_tensors, write_tensors
from rctk.models import arch_of
from rctk.models.pruned import PREFIX
from rctk_export.bundle import file_sha256
from rctk_kernels.errors import ModelError

KEPT_DRAFT = "rctk-step"
"""Format of what a graph step left for the next one: a draft without its float parent."""
SAME = 1e-4
"""A file holds a module when their logits differ by no more than this share of the largest."""


def first_key(model: LoadedModel, context: Context) -> str:
    """Return a hash of model, data, seed and versions: all that a recipe starts from."""
    facts = {
        "model": model.sha256,
        "arch": model.arch,
        "input": model.input.as_dict(),
        "classes": model.classes,
        "files": _files([model.arch.removeprefix(PREFIX).rpartition(":")[0]]),
    }
    return _hash({**facts, **_conditions(context)})


def graph_key(draft: Draft, context: Context) -> str:
    """Return the same for a captured model."""
    return _hash({"draft": draft_digest(draft), **_conditions(context)})


def _conditions(context: Context) -> dict[str, Any]:
    return {
        "train": context.train.fingerprint,
        "validation": context.validation.fingerprint,
        "seed": context.seed,
        "versions": {name: versions().get(name) for name in ("rctk", "torch")},
    }


def next_key(key: str, named: Named) -> str:
    """Return a hash of ``key``, the step with its settings, and the files and ``extra`` images that those name."""
    settings = asdict(cast("Any", named.step))
    facts = {"before": key, "step": str(named), "files": _files(settings.values())}
    if "extra" in settings:
        facts["extra"] = read_split(settings["extra"]).fingerprint
    return _hash(facts)


def _files(values: Iterable[Any]) -> dict[str, str]:
    paths = [Path(value) for value in values if value and isinstance(value, (str, Path))]
    return {str(path): file_sha256(path) for path in paths if path.is_file()}


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder with one file per finished step; recipes that begin alike share them.

    Attributes:
        folder: Made when the first step is finished.
    """

    folder: Path

    def path(self, number: int, named: Named, key: str) -> Path:
        """Return the file of step ``number``."""
        return self.folder / f"{number:02}-{named.name}-{key[:16]}.pt"

    def scratch(self, number: int, named: Named, key: str) -> Path:
        """Return the folder where step ``number`` keeps its own files until it is finished."""
        return self.path(number, named, key).with_suffix("")

    def find(self, path: Path, model: LoadedModel, key: str) -> LoadedModel | None:
        """Return the module that was kept in ``path``; None where there is none, or where it must be made again.

        Args:
            path: Of the step.
            model: What the step began with; only its architecture is built, so that no foreign file runs code.
            key: Of the step.
        """
        if not path.is_file():
            return None
        base = model.arch.removeprefix(PREFIX)
        try:
            contents = read_contents(path, "pickle", None, None, trust_pickle=False)
            if contents.extra.get("key") != key or contents.arch not in {base, PREFIX + base}:
                return None
            return replace(load_model(path, arch=contents.arch), source=model.source)
        except ModelError:
            return None  # a damaged file is worth no more than a missing one

    def find_draft(self, path: Path, key: str) -> Draft | None:
        """Return the draft that was kept in ``path``; None where there is none, or where it must be made again."""
        if not path.is_file():
            return None
        try:
            header, tensors = read_tensors(path)
            return draft_of(header["draft"], tensors, path) if header.get("key") == key else None
        except (ModelError, KeyError):
            return None  # a damaged file is worth no more than a missing one

    def keep_draft(self, path: Path, draft: Draft, key: str) -> Draft:
        """Write what a graph step made, and return it as it will be read."""
        header, tensors = draft_contents(draft)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"format": KEPT_DRAFT, "key": key, "draft": header}, tensors)
        return draft_of(header, tensors, path)


def save_compressed(path: Path, model: LoadedModel, steps: Sequence[Named], **extra: Any) -> LoadedModel:
    """Write a module that steps have changed, read it back, and return it as it was read.

    Args:
        path: Replaced in one step; its folder is made.
        model: ``arch`` made the module that the steps began with.
        steps: All steps so far; they are kept in the file.
        extra: Further JSON values for the file.

    Raises:
        ModelError: The file cannot be written, or does not give the same logits.
    """
    step = steps[-1].name
    try:
        arch = arch_of(model.module, model.arch, classes=len(model.classes), input=model.input)
    except ModelError as error:
        raise ModelError(f"a checkpoint cannot hold what {step} made of this module: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = [each.as_dict() for each in steps]
    own = {"arch": arch, "input": model.input, "classes": model.classes}
    save_checkpoint(path, model.module, **own, extra={**extra, "recipe": recipe})  # type: ignore[arg-type]
    saved = load_model(path, arch=arch)
    images = torch.rand(2, *model.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = model.module(images), saved.module(images)
    if not torch.allclose(expected, found, rtol=0, atol=SAME * float(expected.abs().max())):
        path.unlink()
        raise ModelError(
            f"a checkpoint cannot hold what {step} made of this module: logits differ by up to "
            f"{float((expected - found).abs().max()):.3g} when it is read back; leave the step out"
        )
    return replace(saved, source=model.source)
