"""What a model answers before anybody attacks it: NaN, probabilities, other classes, other answers every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rctk.attacks.attack import Predict
from rctk.data.split import Split
from rctk.evaluation.counting import Counted
from rctk.evaluation.repeatability import repeatability
from rctk.evaluation.scores import Scored
from rctk.evaluation.subjects import Subject
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.score_resolution import score_resolution
from rctk_kernels.errors import DataError

IMAGES, REPEATS = 64, 3
SUM_TOLERANCE = 1e-2
"""How far the sum of int8 probabilities, in steps of 1/256, may be from 1."""
SMALLEST = 1e-12
"""Stands for a probability of 0, whose logarithm is none."""


class FirstLook:
    """Asks every form about the same few images, three times, and says what a reader of the results must know.

    Probabilities are replaced by their logarithm, which is the logits up to a constant per image: the classes stay,
    score attacks and gradients see more. These queries are not counted: no attack is told what they found.

    Attributes:
        notes: Sentences, in the order in which forms were looked at.
        facts: Form to JSON values for its record.

    Args:
        split: Images; the first sixty-four are used.
        batch_size: Most images in one pass.
        classes: Names of the model's classes, where known.
    """

    def __init__(self, split: Split, batch_size: int, classes: Sequence[str] = ()) -> None:
        check_class_names(split, classes)
        self.notes: list[str] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self._images, self._batch_size = split.images[:IMAGES], batch_size
        self._classes = (len(classes), f"the bundle names {len(classes)}") if classes else None
        self._logarithms: dict[int, Any] = {}

    def __call__(self, subject: Subject) -> Subject:
        """Look at one form; return it, or the same one with logarithms in place of probabilities.

        Raises:
            DataError: It has another number of classes than the bundle or the form before it.
            EngineError: It answers NaN, or no logits at all.
        """
        for text in subject.notes:
            self._note(subject, text)
        answers = Counted(subject.predict, len(self._images), self._batch_size)(self._images)
        self._check_count(subject.name, answers.shape[1])
        again = repeatability(subject.predict, self._images, repeats=REPEATS, batch_size=self._batch_size)
        if not again.deterministic:
            self._note(subject, again.sentence())
        resolution = score_resolution(answers)
        unrounded = getattr(subject.predict, "scores", None) is not None
        if unrounded:
            self._note(subject, f"{resolution.sentence()}; score attacks read its evaluation variant, which is finer")
        elif resolution.coarse:
            self._note(subject, f"{resolution.sentence()}; score attacks see little, which makes no model robust")
        share = probability_share(answers)
        self.facts[subject.name] = {
            "images": len(self._images),
            "score_resolution": resolution._asdict(),
            "evaluation_variant": unrounded,
            "repeats": again.repeats,
            "changed_classes": int(again.changed.sum()),
            "largest_distance": again.largest_distance,
            "probabilities": share == 1,
        }
        return self._logits(subject, answers) if share == 1 else subject

    @property
    def classes(self) -> int:
        """Number of classes ``K`` of the forms looked at so far."""
        assert self._classes is not None  # one form was looked at
        return self._classes[0]

    def _check_count(self, name: str, count: int) -> None:
        known, said = self._classes or (count, "")
        if count != known:
            raise DataError(
                f"{name} answers {count} logits and {said}: not the same classes; give the files of one model"
            )
        self._classes = (count, f"{name} {count}")

    def _logits(self, subject: Subject, answers: FloatNK) -> Subject:
        ends = float(((answers == 0) | (answers == 1)).mean())
        self._note(
            subject,
            "it answers probabilities, not logits: attacks read their logarithm, which keeps every class"
            + (f"; {ends:.0%} of them are exactly 0 or 1, where attacks are blind" if ends else ""),
        )
        scores: Predict | None = getattr(subject.predict, "scores", None)
        predict: Predict = Logarithm(subject.predict)
        predict = predict if scores is None else Scored(predict, Logarithm(scores))
        return replace(subject, predict=predict, model=self._logarithm(subject.model))

    def _logarithm(self, model: Any) -> Any:
        if model is None:
            return None
        from rctk.attacks.log_model import LogModel  # noqa: PLC0415  # torch, which is there where a model is

        return self._logarithms.setdefault(id(model), LogModel(model))

    def _note(self, subject: Subject, text: str) -> None:
        self.notes.append(f"{subject.name}: {text}")


class Logarithm:
    """A ``predict`` whose probabilities become logits.

    Example:
        >>> halves = Logarithm(lambda x: np.full((len(x), 2), 0.5, dtype=np.float32))
        >>> halves(np.zeros((1, 1, 1, 1), dtype=np.float32)).round(3).tolist()
        [[-0.6930000185966492, -0.6930000185966492]]
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logarithms ``(N, K)``."""
        return np.asarray(np.log(np.maximum(self._predict(images), np.float32(SMALLEST))))


def probability_share(answers: FloatNK) -> float:
    """Return the share of answers ``(N, K)`` that sum to 1, if all lie in [0, 1]; else 0.

    Example:
        >>> probability_share(np.array([[0.25, 0.75], [1.0, 0.0]])), probability_share(np.array([[2.0, -1.0]]))
        (1.0, 0.0)
    """
    if not len(answers) or answers.min() < -SUM_TOLERANCE or answers.max() > 1 + SUM_TOLERANCE:
        return 0.0
    return float((np.abs(answers.sum(axis=1) - 1) <= SUM_TOLERANCE).mean())


def check_class_names(split: Split, classes: Sequence[str]) -> None:
    """Refuse images whose classes are those of the model in another order: every label would be wrong."""
    if split.classes and sorted(split.classes) == sorted(classes) and tuple(split.classes) != tuple(classes):
        first = next(k for k, names in enumerate(zip(split.classes, classes, strict=True)) if names[0] != names[1])
        raise DataError(
            f"{split.name} and the model number their classes differently: class {first} is {split.classes[first]!r} "
            f"in the data and {classes[first]!r} in the model; renumber the labels"
        )
