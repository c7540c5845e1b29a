"""Searches for images that one form of a model gets wrong and the other right, in one direction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Rows
from rctk.attacks.disagreement import Disagreement
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.crafting import Cost, accept, attack_seed, groups
from rctk.evaluation.journal import Journal
from rctk.evaluation.judge import Flags
from rctk.evaluation.shares import Share
from rctk.evaluation.subjects import Subject
from rctk.progress import Progress, Silent
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


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
        fooling: ``(n, C, H, W)``; the first candidate that fooled the form under attack, else the original.
        queries: For each form ``(N,)``; images that it classified in this direction.
        cost: Passes through differentiable models.
        seconds: Wall time.
    """

    fooled: str
    unaware: str
    searches: Mapping[str, Search]
    union: Search
    adversarial: FloatNCHW
    fooling: FloatNCHW
    queries: Mapping[str, npt.NDArray[np.int64]]
    cost: Cost
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; the images stay here."""
        return {
            "fooled": self.fooled,
            "unaware": self.unaware,
            "searches": {text: search.as_dict() for text, search in self.searches.items()},
            "union": self.union.as_dict(),
        }


class Form:
    """One form of the model, what it gets right, and its counter."""

    def __init__(self, subject: Subject, split: Split, batch_size: int) -> None:
        self.subject, self.name = subject, subject.name
        self.counted = Counted(subject.predict, len(split), batch_size)
        self.right: Flags = clean_classes(self.counted, split) == split.labels
        self.told: npt.NDArray[np.int64] = np.zeros(len(split), dtype=np.int64)

    def fresh_queries(self) -> npt.NDArray[np.int64]:
        """Return the queries about each image since the last call, ``(N,)``."""
        fresh = self.counted.queries - self.told
        self.told = self.counted.queries.copy()
        return fresh


class Hunt:
    """All searches of one direction over the images that both forms get right."""

    def __init__(
        self, victim: Form, observer: Form, common: Split, rows: Rows, threat: ThreatModel, every: int
    ) -> None:
        self.victim, self.observer = victim, observer
        self.common, self.rows, self.threat, self.every = common, rows, threat, every
        self.adversarial, self.fooling = common.images.copy(), common.images.copy()
        self.found: dict[str, Search] = {}
        self.cost = Cost()
        self.started = time.perf_counter()

    def run(
        self, text: str, method: Any, seed: int, batch_size: int, progress: Progress | None, journal: Journal | None
    ) -> None:
        """Search all images in batches; a batch that the journal knows is not searched again."""
        nothing = np.zeros(len(self.common), dtype=np.bool_)
        self.found[text] = Search(fooled=nothing, evasive=nothing.copy())
        facts = f"{method!r} on {self.victim.name} {self.threat!r} every {self.every} batch {batch_size} seed {seed} "
        with (progress or Silent()).stage(f"{text} on {self.victim.name}", len(self.common)) as advance:
            for group in groups(np.arange(len(self.common)), batch_size):
                batch = _Batch(self, text, group)

                def search(group: Rows = group, batch: _Batch = batch) -> Mapping[str, npt.NDArray[Any]]:
                    self._search(text, method, group, seed, batch_size)
                    return batch.outcome()

                if journal is None:
                    search()
                else:
                    earlier = "+".join(self.found)
                    saved, found = journal.kept(f"{facts}after {earlier}: {self.rows[group].tolist()}", search)
                    if found:
                        batch.restore(saved)
                advance(len(group))

    def _search(self, text: str, method: Any, group: Rows, seed: int, batch_size: int) -> None:
        if method.kind == "query":
            self._ask(text, method, group, seed)
        else:
            self._walk(text, method, group, batch_size)

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
        first = evasive & ~self._union("fooled")[at]
        self.fooling[at[first]] = images[first]
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
            fooling=self.fooling,
            queries={form.name: form.fresh_queries() for form in (self.victim, self.observer)},
            cost=self.cost,
            seconds=time.perf_counter() - self.started,
        )


class _Batch:
    """What one search changes of a hunt in one batch, for the journal."""

    def __init__(self, hunt: Hunt, text: str, group: Rows) -> None:
        self._hunt, self._text, self._group = hunt, text, group
        self._cost = hunt.cost
        self._asked = [form.counted.queries.copy() for form in self._forms()]

    def _forms(self) -> tuple[Form, Form]:
        return self._hunt.victim, self._hunt.observer

    def outcome(self) -> dict[str, npt.NDArray[Any]]:
        """Return the results of the batch, and what they cost."""
        hunt, group, found = self._hunt, self._group, self._hunt.found[self._text]
        asked = [form.counted.queries - old for form, old in zip(self._forms(), self._asked, strict=True)]
        return {
            "fooled": found.fooled[group],
            "evasive": found.evasive[group],
            "adversarial": hunt.adversarial[group],
            "fooling": hunt.fooling[group],
            "queries": np.stack([queries[hunt.rows[group]] for queries in asked]),
            "cost": np.asarray([b - a for a, b in zip(self._cost, hunt.cost, strict=True)], dtype=np.int64),
        }

    def restore(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put the results of an earlier run in their place."""
        hunt, group, found = self._hunt, self._group, self._hunt.found[self._text]
        found.fooled[group], found.evasive[group] = saved["fooled"], saved["evasive"]
        hunt.adversarial[group], hunt.fooling[group] = saved["adversarial"], saved["fooling"]
        for form, queries in zip(self._forms(), saved["queries"], strict=True):
            form.counted.queries[hunt.rows[group]] += queries
        hunt.cost = Cost(*(a + int(b) for a, b in zip(hunt.cost, saved["cost"], strict=True)))
