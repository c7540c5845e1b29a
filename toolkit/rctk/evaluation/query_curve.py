"""Robust accuracy against the number of queries: at which of its queries each image broke. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Kind, Predict, QueryAttack, Rows, norms, query
from rctk.data.split import Labels, Split
from rctk.evaluation.judge import AttackResult, evaluate
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import AttackError, OptionError

NEVER = np.iinfo(np.int64).max
"""The number of the query that broke an image that none broke."""
_MOVED = 1e-6
"""A candidate that the projection moves by more than this in some pixel is outside the budget."""


class Curve(NamedTuple):
    """A falling staircase to plot: ``robust[i]`` holds from ``queries[i]`` to just before ``queries[i + 1]``.

    Attributes:
        queries: ``(P,)`` int64, from 0 to the attack's budget per image.
        robust: ``(P,)`` share of all images that are right as they are and not yet broken.
    """

    queries: npt.NDArray[np.int64]
    robust: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class QueryCurve:
    """When each image broke.

    Attributes:
        broken_at: ``(N,)`` int64; the number, from 1, of the image's query that was the first inside the budget to be
            misclassified, 0 for an image misclassified as it is, ``NEVER`` for a robust one.
        budget: Most queries per image.
        result: What the judge says. It has the last word: an image is broken here if and only if it is there. Where
            no query showed it, because only the projected candidate breaks, the image's last query counts.
    """

    broken_at: npt.NDArray[np.int64]
    budget: int
    result: AttackResult

    def robust_accuracy(self, queries: int) -> float:
        """Return the share of images that survive so many queries each."""
        return float((self.broken_at > queries).mean())

    def points(self) -> Curve:
        """Return the whole curve; it starts with the clean accuracy and ends with the robust accuracy."""
        steps = np.unique(np.concatenate([[0, self.budget], self.broken_at[self.broken_at != NEVER]]))
        return Curve(queries=steps, robust=np.array([self.robust_accuracy(step) for step in steps.tolist()]))

    def median_queries(self) -> float | None:
        """Return the median number of queries of the images that were attacked and broke; ``None`` if none did."""
        broke = self.broken_at[(self.broken_at > 0) & (self.broken_at != NEVER)]
        return float(np.median(broke)) if len(broke) else None


def query_curve(
    predict: Predict, split: Split, attack: Attack, threat: ThreatModel, *, seed: int, batch_size: int = 64
) -> QueryCurve:
    """Run :func:`rctk.evaluation.judge.evaluate` with a query attack and note when each image breaks.

    The attack is not told and its result is the same as without.
    """
    if attack.kind != "query":
        raise OptionError(f"a query curve needs a query attack such as square, got {attack.name}")
    watched = _Watched(attack=cast("QueryAttack", attack))
    result = evaluate(predict, split, cast("Attack", watched), threat, seed=seed, batch_size=batch_size)
    shared = {key: value for key, value in result.settings.items() if key not in asdict(watched)}
    result = replace(result, settings=asdict(cast("Any", attack)) | shared)
    seen = np.zeros(len(split), dtype=np.int64)
    seen[result.clean] = np.concatenate(watched.seen) if watched.seen else NEVER
    asked = result.queries - 2  # less the clean and the last pass
    broken_at = np.where(result.robust, NEVER, np.where(result.clean, np.minimum(seen, asked), 0))
    return QueryCurve(broken_at=broken_at, budget=attack.passes, result=result)


class Watch:
    """A ``predict`` that passes everything on and notes the query at which each image first broke in its budget.

    Attributes:
        broken_at: ``(N,)`` int64, from 1; ``NEVER`` where no image in the budget was misclassified.

    Args:
        predict: What is passed on to, its booking of queries included.
        x: Originals ``(N, C, H, W)``.
        y: Their labels ``(N,)``.
        threat: The budget.
    """

    def __init__(self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel) -> None:
        self.broken_at = np.full(len(x), NEVER)
        self._predict, self._x, self._y, self._threat = predict, x, y, threat
        self._asked = np.zeros(len(x), dtype=np.int64)
        self._rows: Rows | None = None

    def book(self, rows: Rows) -> None:
        """Hear which images the next query is about."""
        self._rows = rows

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logits of ``images`` ``(n, C, H, W)``."""
        rows, self._rows = self._rows, None
        if rows is None or len(rows) != len(images):
            raise AttackError(
                "the attack does not say which images its queries are about, so there is no query curve; let it "
                "query through rctk.attacks.attack.ask"
            )
        logits = query(self._predict, images, rows)
        number = self._asked[rows] + _occurrence(rows) + 1
        np.add.at(self._asked, rows, 1)
        broken = np.flatnonzero(logits.argmax(axis=1) != self._y[rows])
        broken = broken[self._inside(images[broken], self._x[rows[broken]])]
        np.minimum.at(self.broken_at, rows[broken], number[broken])
        return logits

    def _inside(self, images: FloatNCHW, x: FloatNCHW) -> npt.NDArray[np.bool_]:
        moved = np.abs(self._threat.project(images, x) - images)
        return np.asarray((moved <= _MOVED).all(axis=(1, 2, 3)))


def _occurrence(rows: Rows) -> npt.NDArray[np.int64]:
    """Return how many times each entry occurred before it, ``(n,)``.

    Example:
        >>> _occurrence(np.array([7, 3, 7, 7, 3])).tolist()
        [0, 0, 1, 2, 1]
    """
    order = np.argsort(rows, kind="stable")
    ranked = rows[order]
    result = np.empty(len(rows), dtype=np.int64)
    result[order] = np.arange(len(rows)) - np.searchsorted(ranked, ranked)
    return result


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """The attack, run with a :class:`Watch` for every group of images."""

    attack: QueryAttack
    seen: list[npt.NDArray[np.int64]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.attack.name

    @property
    def kind(self) -> Kind:
        return "query"

    @property
    def norms(self) -> tuple[Norm, ...]:
        return norms(self.attack)

    @property
    def labels_only(self) -> bool:
        return bool(getattr(self.attack, "labels_only", False))

    @property
    def imitates(self) -> bool:
        return bool(getattr(self.attack, "imitates", False))

    @property
    def passes(self) -> int:
        return self.attack.passes

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        watch = Watch(predict, x, y, threat)
        candidates = self.attack(watch, x, y, threat, rng)
        self.seen.append(watch.broken_at)
        return candidates
