"""More to craft on: the mean of several forms of a model, and each form with another one beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from rctk.attacks.beside import Beside
from rctk.attacks.disagreement import PredictBeside
from rctk.attacks.ensemble import LogitEnsemble
from rctk.evaluation.module_predict import ModulePredict
from rctk.evaluation.subjects import Subject
from rctk_kernels.errors import OptionError


def source(name: str, model: nn.Module) -> Subject:
    """Return a subject that gradient attacks are crafted on and nothing is judged on.

    What it crafts counts as tier ``transfer-NAME`` on the others.
    """
    return Subject(name=name, predict=ModulePredict(model), model=model, model_name=name, judged=False)


def with_ensemble(subjects: Sequence[Subject], name: str = "ensemble") -> list[Subject]:
    """Return ``subjects`` and one more to craft on: the mean logits of all their different models.

    Candidates that fool float model and twin at once are the tier ``transfer-ensemble`` of every judged subject.
    """
    models = dict.fromkeys(cast("nn.Module", subject.model) for subject in subjects if subject.model is not None)
    if len(models) < 2:
        raise OptionError(
            f"an ensemble needs two different models, and {', '.join(s.name for s in subjects)} have {len(models)}; "
            "give the float model and a twin, such as --on float --on engine"
        )
    return [*subjects, source(name, LogitEnsemble(*models))]


def beside_each_other(first: Subject, second: Subject) -> tuple[Subject, Subject]:
    """Return two subjects that have each other as the reference of attacks on differences.

    Such an attack, crafted for one of them, looks for what this one gets wrong and the other right. All other attacks
    run as before.
    """
    return _beside(first, second), _beside(second, first)


def _beside(subject: Subject, reference: Subject) -> Subject:
    predict = PredictBeside(subject.predict, reference.predict)
    if subject.model is None or reference.model is None:
        return replace(subject, predict=predict)
    model = Beside(cast("nn.Module", subject.model), cast("nn.Module", reference.model))
    return replace(subject, predict=predict, model=model)
