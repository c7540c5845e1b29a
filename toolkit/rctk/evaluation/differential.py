"""Images on which one form of a model is wrong and the other right: what a float monitor misses, and the reverse."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Rows, require_norm
from rctk.data.split import Split
from rctk.evaluation.crafting import Cost
from rctk.evaluation.hunt import Direction, Form, Hunt, Search
from rctk.evaluation.journal import Journal
from rctk.evaluation.judge import remarks
from rctk.evaluation.subjects import Subject
from rctk.progress import Progress
from rctk.threat import ThreatModel
from rctk_export.registry import Family
from rctk_kernels.errors import DataError, OptionError

__all__ = ["DEFAULT_SEARCHES", "SEARCHES", "DifferentialResult", "Direction", "Search", "differential"]

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
    journal: Journal | None = None,
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
        journal: Keeps finished batches; a run that was stopped finds them again and ends with the same result.
    """
    if replay_every < 1:
        raise OptionError(f"replay_every must be at least 1, got {replay_every}")
    started = time.perf_counter()
    methods = {text: SEARCHES.build(text) for text in dict.fromkeys(searches)}
    for method in methods.values():
        require_norm(method, threat)
    forms = [Form(subject, split, batch_size) for subject in (float_subject, engine_subject)]
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
        hunt = Hunt(victim, observer, split.take(rows), rows, threat, replay_every)
        for text in (text for text in methods if text not in skipped):
            hunt.run(text, methods[text], seed, batch_size, progress, journal)
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
