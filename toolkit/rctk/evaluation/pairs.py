"""Forms of a model with another one beside each, for attacks on their difference. Imports torch only for models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from rctk.attacks.disagreement import PredictBeside
from rctk.evaluation.subjects import Subject


def beside_each_other(first: Subject, second: Subject) -> tuple[Subject, Subject]:
    """Return two subjects that have each other as the reference of attacks on differences.

    Such an attack, crafted for one of them, looks for what this one gets wrong and the other right. All other attacks
    run as before.
    """
    return beside(first, second), beside(second, first)


def beside_float(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects with the float model beside every other one, and the last of those beside the float model.

    Without a float model, or without another form that is judged, nothing changes.
    """
    parents = [subject for subject in subjects if subject.name == "float"]
    others = [subject for subject in subjects if subject.name != "float" and subject.judged]
    if not parents or not others:
        return list(subjects)
    return [beside(s, others[-1] if s.name == "float" else parents[0]) if s.judged else s for s in subjects]


def beside(subject: Subject, reference: Subject) -> Subject:
    """Return ``subject`` with ``reference`` beside it."""
    predict = PredictBeside(subject.predict, reference.predict)
    if subject.model is None or reference.model is None:
        return replace(subject, predict=predict)
    from rctk.attacks.beside import Beside  # noqa: PLC0415  # torch, which is there where a model is

    return replace(subject, predict=predict, model=Beside(cast("Any", subject.model), cast("Any", reference.model)))
