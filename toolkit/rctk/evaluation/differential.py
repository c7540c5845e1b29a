"""Images on which one form of a model is wrong and the other right: what a float monitor misses, and the reverse."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Rows, require_norm
from rctk.attacks.disagreement import Disagreement
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.crafting import Cost, accept, attack_seed, groups
from rctk.evaluation.judge import Flags, remarks
from rctk.evaluation.shares import Share
from rctk.evaluation.subjects import Subject
from rctk.progress import Progress, Silent
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_export.registry import Family
from rctk_kernels.errors import DataError, OptionError

SEARCHES: Family[Any] = Family(
    "differential search",
    {
        "border-walk": "rctk.attacks.border_walk:BorderWalk",
        "disagreement": "rctk.attacks.disagreement:Disagreement",
        "diva": "rctk.attacks.diva:DIVA",
        "pgd": "rctk.evaluation.guided:PlainPgd",
    },
)
DEFAULT_SEARCHES = ("diva", "pgd", "border-walk", "disagreement")
"""DIVA is not uniformly better than PGD on the twin, and two forms without gradients leave the last one only."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What one search found in one direction; ``(n,)`` both, over the images that both forms get right.

    Attributes:
        fooled: Some candidate that was replayed fooled the form under attack.
        evasive: Some such candidate did, and the other form named the true class.
    """

    fooled: Flags
    evasive: Flags

    @property
    def success(self) -> Share:
        """Share of images on which the form under attack was fooled."""
        return Share.of(self.fooled)

    @property
    def evasive_share(self) -> Share:
        """Share of images on which it was fooled unseen."""
        return Share.of(self.evasive)

    @property
    def evasion(self) -> Share:
        """Share of the fooled images on which the other form saw nothing."""
        return Share.of(self.evasive, self.fooled)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: three shares, each with counts and interval."""
        shares = {"success": self.success, "evasive": self.evasive_share, "evasion": self.evasion}
        return {name: share._asdict() for name, share in shares.items()}


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One form is attacked, the other must not notice.

    Attributes:
        fooled: Name of the form under attack.
        unaware: Name of the other.
        searches: What each search found.
        union: What all of them found together; ``evasive`` is what both forms said about ``adversarial`` in one last
            pass.
        adversarial: ``(n, C, H, W)``; the first evasive candidate, else the original.
    """

    fooled: str
    unaware: str
    searches: Mapping[str, Search]
    union: Search
    adversarial: FloatNCHW

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; the images stay here."""
        return {
            "fooled": self.fooled,
            "unaware": self.unaware,
            "searches": {text: search.as_dict() for text, search in self.searches.items()},
            "union": self.union.as_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class DifferentialResult:
    """How far two forms of a model can be driven apart inside a budget. Not a robust accuracy of either.

    Attributes:
        samples: Images of the split, ``N``.
        rows: ``(n,)``; images that both forms get right, which are the ones that were attacked.
        directions: The engine fooled and float unaware, then the reverse.
        queries: For each form ``(N,)``; images that it classified.
        forward_passes: Images forward through differentiable models.
        backward_passes: Images that a gradient came back for.
        seconds: Wall time.
        settings: Searches, budget, seed, batch size and how often iterates were replayed.
        notes: What a reader should know.
    """

    samples: int
    rows: Rows
    directions: tuple[Direction, Direction]
    queries: Mapping[str, npt.NDArray[np.int64]]
    forward_passes: int
    backward_passes: int
    seconds: float
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for a record."""
        return {
            "samples": self.samples,
            "common": len(self.rows),
            "directions": [direction.as_dict() for direction in self.directions],
            "queries": {name: int(queries.sum()) for name, queries in self.queries.items()},
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def differential(  # noqa: PLR0913 - who, on what, how much, then how
    float_subject: Subject,
    engine_subject: Subject,
    split: Split,
    threat: ThreatModel,
    *,
    searches: Sequence[str],
    seed: int,
    batch_size: int,
    replay_every: int = 1,
    progress: Progress | None = None,
) -> DifferentialResult:
    """Search for images that one form gets wrong and the other right, both ways.

    A candidate counts where the real ``predict`` of both says so, at any iterate that is replayed, not where a twin
    does. Every search tries all images that both get right.

    Args:
        float_subject: The float model.
        engine_subject: The engine, with its twin as ``model``.
        split: Images and labels.
        threat: The budget.
        searches: Members of :data:`SEARCHES` with settings, such as :data:`DEFAULT_SEARCHES`.
        seed: Same seed, batch size and machine: same result, bit for bit.
        batch_size: Most images in one pass.
        replay_every: Steps between two iterates that are replayed; each costs a query.
        progress: Told about every batch of images.
    """
    if replay_every < 1:
        raise OptionError(f"replay_every must be at least 1, got {replay_every}")
    started = time.perf_counter()
    methods = {text: SEARCHES.build(text) for text in dict.fromkeys(searches)}
    for method in methods.values():
        require_norm(method, threat)
    forms = [_Form(subject, split, batch_size) for subject in (float_subject, engine_subject)]
    rows = np.flatnonzero(forms[0].right & forms[1].right)
    if not len(rows):
        raise DataError(f"{split.name}: {forms[0].name} and {forms[1].name} get no image right together")
    blind = [form.name for form in forms if form.subject.model is None]
    skipped = [text for text, method in methods.items() if blind and method.kind == "gradient"]
    if len(skipped) == len(methods):
        raise OptionError(f"{', '.join(skipped)} need gradients, {blind[0]} has none; search with disagreement")
    notes = [f"{blind[0]} has no differentiable model: {', '.join(skipped)} did not run"] if skipped else []
    directions, cost = [], Cost()
    for victim, observer in (forms[::-1], forms):
        hunt = _Hunt(victim, observer, split.take(rows), rows, threat, replay_every)
        for text in (text for text in methods if text not in skipped):
            hunt.run(text, methods[text], seed, batch_size, progress)
        directions.append(hunt.direction())
        cost = Cost(*(a + b for a, b in zip(cost, hunt.cost, strict=True)))
    return DifferentialResult(
        samples=len(split),
        rows=rows,
        directions=(directions[0], directions[1]),
        queries={form.name: form.counted.queries for form in forms},
        forward_passes=cost.forward,
        backward_passes=cost.backward,
        seconds=time.perf_counter() - started,
        settings={
            "searches": tuple(methods),
            "norm": threat.norm,
            "eps": threat.eps,
            "grid": threat.grid,
            "seed": seed,
            "batch_size": batch_size,
            "replay_every": replay_every,
        },
        notes=(*notes, *remarks(cost, 0, 0)),
    )


class _Form:
    """One form of the model, what it gets right, and its counter."""

    def __init__(self, subject: Subject, split: Split, batch_size: int) -> None:
        self.subject, self.name = subject, subject.name
        self.counted = Counted(subject.predict, len(split), batch_size)
        self.right: Flags = clean_classes(self.counted, split) == split.labels


class _Hunt:
    """All searches of one direction over the images that both forms get right."""

    def __init__(
        self, victim: _Form, observer: _Form, common: Split, rows: Rows, threat: ThreatModel, every: int
    ) -> None:
        self.victim, self.observer = victim, observer
        self.common, self.rows, self.threat, self.every = common, rows, threat, every
        self.adversarial = common.images.copy()
        self.found: dict[str, Search] = {}
        self.cost = Cost()

    def run(self, text: str, method: Any, seed: int, batch_size: int, progress: Progress | None) -> None:
        nothing = np.zeros(len(self.common), dtype=np.bool_)
        self.found[text] = Search(fooled=nothing, evasive=nothing.copy())
        with (progress or Silent()).stage(f"{text} on {self.victim.name}", len(self.common)) as advance:
            for group in groups(np.arange(len(self.common)), batch_size):
                if method.kind == "query":
                    self._ask(text, method, group, seed)
                else:
                    self._walk(text, method, group, batch_size)
                advance(len(group))

    def _ask(self, text: str, method: Disagreement, group: Rows, seed: int) -> None:
        x, y = self.common.images[group], self.common.labels[group]
        rng = np.random.default_rng(attack_seed(seed, method))
        victim, observer = self.victim.counted.about(self.rows[group]), self.observer.counted.about(self.rows[group])
        victim.reference = observer
        self._replay(text, method(victim, x, y, self.threat, rng), group)

    def _walk(self, text: str, method: Any, group: Rows, batch_size: int) -> None:
        from rctk.attacks.beside import Beside  # noqa: PLC0415  # torch, only for subjects that have gradients
        from rctk.evaluation.guided import Guided  # noqa: PLC0415

        pair = Beside(cast("Any", self.victim.subject.model), cast("Any", self.observer.subject.model))
        guided = Guided(method, pair, batch_size)
        x, y = self.common.images[group], self.common.labels[group]
        guided.search(x, y, self.threat, lambda adv, at: self._replay(text, adv, group[at]), every=self.every)
        self.cost = Cost(*(a + b for a, b in zip(self.cost, guided.cost, strict=True)))

    def _replay(self, text: str, raw: FloatNCHW, at: Rows) -> Flags:
        """Ask the victim about candidates for the images ``at``, and the observer where it was fooled."""
        images, _ = accept(raw, self.common.images[at], self.threat)
        y = self.common.labels[at]
        evasive = self.victim.counted.classes(images, self.rows[at]) != y
        found = self.found[text]
        found.fooled[at[evasive]] = True
        suspects = np.flatnonzero(evasive)
        seen = self.observer.counted.classes(images[suspects], self.rows[at[suspects]])
        evasive[suspects] = seen == y[suspects]
        fresh = evasive & ~self._union("evasive")[at]
        self.adversarial[at[fresh]] = images[fresh]
        found.evasive[at[evasive]] = True
        return np.asarray(evasive)

    def _union(self, what: str) -> Flags:
        return np.asarray(np.any([getattr(search, what) for search in self.found.values()], axis=0))

    def direction(self) -> Direction:
        """Classify what was stored once more and return everything."""
        y = self.common.labels
        wrong = self.victim.counted.classes(self.adversarial, self.rows) != y
        right = self.observer.counted.classes(self.adversarial, self.rows) == y
        return Direction(
            fooled=self.victim.name,
            unaware=self.observer.name,
            searches=self.found,
            union=Search(fooled=self._union("fooled"), evasive=np.asarray(wrong & right)),
            adversarial=self.adversarial,
        )
