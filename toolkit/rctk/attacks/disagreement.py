"""Random search for images on which two models disagree, from logits alone, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks import square_moves
from rctk.attacks.attack import Answer, FloatN, Kind, Predict, Rows, ask
from rctk.attacks.draws import base_seed, image_seeds, words
from rctk.attacks.square import Square
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import AttackError, OptionError


class PredictBeside:
    """A ``predict`` with that of another model beside it.

    Args:
        predict: The model under attack.
        reference: The model that must not notice.
    """

    def __init__(self, predict: Predict, reference: Predict) -> None:
        self._predict, self.reference = predict, reference
        self.scores: Predict | None = getattr(predict, "scores", None)

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logits of the model under attack."""
        return self._predict(images)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Search for images that the model under attack gets wrong and a reference right, linf and l2.

    The moves are those of the Square attack. A move is kept when it raises the smaller of two margins: that of the
    true class in the reference, and that of the best wrong class in the model. Both are positive exactly where the
    models disagree in the wanted way, so the search walks to the border of both and along it. Its ``predict`` needs a
    ``reference``, see :class:`PredictBeside`; each query asks both.

    Attributes:
        queries: Most queries per image, the start included.
        p_init: Area of the first squares as a share of the image.
    """

    name: ClassVar[str] = "disagreement"
    kind: ClassVar[Kind] = "query"
    needs_reference: ClassVar[bool] = True

    queries: int = 500
    p_init: float = 0.5

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise OptionError(f"disagreement:queries must be at least 1, got {self.queries}")
        if not 0 < self.p_init <= 1:
            raise OptionError(f"disagreement:p_init is a share of the image in (0, 1], got {self.p_init}")

    @property
    def passes(self) -> int:
        """Queries per image to the model under attack; as many go to the reference."""
        return self.queries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image a candidate they disagree on, or else the one with the highest score."""
        reference: Predict | None = getattr(predict, "reference", None)
        if reference is None:
            raise AttackError(
                "disagreement compares two models and got one; attack two forms, such as --on float --on engine, or "
                "give the predict a reference with rctk.attacks.disagreement.PredictBeside"
            )
        moves, eps, area = square_moves.MOVES[threat.norm], np.float32(threat.eps), self._areas()
        x = np.ascontiguousarray(x)
        out, rows, shape = x.copy(), np.arange(len(x)), x.shape[1:]
        seeds, current = image_seeds(x, base_seed(rng)), x.copy()
        highest, found = _score(predict, reference, current, y, rows)
        for query in range(1, self.queries):
            if found.any():
                out[rows[found]] = current[found]
                left = ~found
                rows, x, y, seeds, current = rows[left], x[left], y[left], seeds[left], current[left]
                highest = highest[left]
            if not len(rows):
                return out
            draws = words(seeds, moves.draws * query, moves.draws)
            candidate, settle = moves.propose(current, x, moves.side(area(query - 1), shape), draws, eps)
            score, found = _score(predict, reference, candidate, y, rows)
            better = (score > highest) | found
            settle(better)
            highest = np.where(better, score, highest)
        out[rows] = current
        return out

    def _areas(self) -> Callable[[int], float]:
        return Square(queries=self.queries, p_init=self.p_init).area


def _score(
    predict: Predict, reference: Predict, images: FloatNCHW, y: Labels, rows: Rows
) -> tuple[FloatN, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return the smaller of the two margins, and where the models disagree as wanted; both ``(n,)``."""
    under: Answer = ask(predict, images, y, rows)
    beside: Answer = ask(reference, images, y, rows)
    return np.minimum(beside.margin, -under.margin), np.asarray(under.broken & ~beside.broken)
