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


def reads_scores(attack: Attack) -> bool:
    """Whether ``attack`` searches by the size of logits; one on labels or on a difference asks the engine itself."""
    return attack.kind == "query" and not (
        getattr(attack, "labels_only", False) or getattr(attack, "needs_reference", False)
    )
