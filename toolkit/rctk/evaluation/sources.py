"""More to craft on than what is judged: the mean of several forms of a model, a substitute, any other network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from rctk.attacks.ensemble import LogitEnsemble
from rctk.evaluation.module_predict import ModulePredict
from rctk.evaluation.subjects import Subject
from rctk_kernels.errors import OptionError


def source(name: str, model: nn.Module) -> Subject:
    """Return a subject that gradient attacks are crafted on and nothing is judged on.

    What it crafts counts as tier ``transfer-NAME`` on the others.
    """
    return Subject(name=name, predict=ModulePredict(model), model=model, model_name=name, judged=False)


def ensemble(subjects: Sequence[Subject], name: str = "ensemble") -> Subject:
    """Return one more subject to craft on: the mean logits of all the different models of ``subjects``.

    Candidates that fool float model and twin at once are the tier ``transfer-ensemble`` of every judged subject.
    """
    models = dict.fromkeys(cast("nn.Module", subject.model) for subject in subjects if subject.model is not None)
    if len(models) < 2:
        names = ", ".join(subject.name for subject in subjects) or "none"
        raise OptionError(
            f"an ensemble needs two different models, found {len(models)} in {names}; give the float model "
            "and a twin, such as --on float --on engine"
        )
    return source(name, LogitEnsemble(*models))


def with_ensemble(subjects: Sequence[Subject]) -> list[Subject]:
    """Return ``subjects`` and their ensemble."""
    return [*subjects, ensemble(subjects)]
