"""Logits that are not rounded, for score attacks on an engine whose own are."""

from __future__ import annotations

from rctk.attacks.attack import Attack, Predict
from rctk_export.input_spec import FloatNCHW, FloatNK


class Scored:
    """The ``predict`` of an engine with a second one beside it whose logits score attacks read.

    Args:
        predict: The engine; it alone decides what broke.
        scores: The evaluation variant of the same file: the same classes, logits that are not rounded.
    """

    def __init__(self, predict: Predict, scores: Predict) -> None:
        self._predict, self.scores = predict, scores

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logits of the engine itself."""
        return self._predict(images)


CLASSES_ONLY = ("labels_only", "imitates", "needs_reference")
"""Marks of query attacks that must ask the engine itself: on its classes, or on its difference to another form."""


def reads_scores(attack: Attack) -> bool:
    """Whether ``attack`` searches by the size of logits.

    Example:
        >>> from rctk.attacks import ATTACKS
        >>> [reads_scores(ATTACKS.build(name)) for name in ("square", "rays", "disagreement", "substitute")]
        [True, False, False, False]
    """
    return attack.kind == "query" and not any(getattr(attack, mark, False) for mark in CLASSES_ONLY)
