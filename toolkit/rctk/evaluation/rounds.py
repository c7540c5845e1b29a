"""One attack crafted for one subject and judged on all of them, or images made elsewhere, judged the same way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Kind, Rows
from rctk.data.split import Split
from rctk.evaluation.crafting import Crafter, Proposal, group_size, groups
from rctk.evaluation.judge import Flags, remarks, zero_gradient_share
from rctk.evaluation.subjects import EIGHT_BIT, Seat
from rctk.progress import Progress, Silent
from rctk_export.input_spec import FloatNCHW

Evidence: TypeAlias = Literal["gradient", "score", "decision", "substitute", "differential"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One attack crafted on one subject, judged on all.

    Attributes:
        attack: As it was asked for, such as ``square:queries=500``.
        kind: ``gradient`` or ``query``.
        subject: Name of the subject it was crafted for.
        crafted_on: What it was crafted on: ``float``, ``twin``, or for queries the subject itself.
        tried: ``(N,)``; images that got a candidate. Images broken on every subject earlier did not.
        robust: For each judged subject ``(N,)``: correct as it is and not broken by these candidates. An image
            that was not tried counts as robust *here*; read ``SuiteResult.robust`` for the union.
        queries: Images classified by all subjects together.
        forward_passes: Images forward through the differentiable model.
        backward_passes: Images that a gradient came back for.
        zero_gradient_share: Share of those gradients that were zero in every pixel.
        seconds: Wall time.
        notes: What a reader should know.
        evidence: What the attack looks at, see :func:`evidence_of`.
    """

    attack: str
    kind: Kind
    subject: str
    crafted_on: str
    tried: Flags
    robust: Mapping[str, Flags]
    queries: int
    forward_passes: int
    backward_passes: int
    zero_gradient_share: float
    seconds: float
    notes: tuple[str, ...]
    evidence: Evidence = "gradient"

    def tier(self, judged: str) -> str:
        """Name the evidence for ``judged``: ``white-box``, ``transfer-float`` or so, ``score``, ``transfer-score``."""
        own = judged.removesuffix(EIGHT_BIT) == self.subject
        if self.evidence != "gradient":
            return self.evidence if own else f"transfer-{self.evidence}"
        return "white-box" if own and self.crafted_on == self.subject else f"transfer-{self.crafted_on}"


def evidence_of(attack: Attack) -> Evidence:
    """Say what an attack looks at.

    ``gradient`` of a model, ``score`` and ``decision`` for the logits or only the classes of what it asks,
    ``substitute`` for a network trained on those classes, ``differential`` for the difference of two forms.

    Example:
        >>> from rctk.attacks import ATTACKS
        >>> [evidence_of(ATTACKS.build(name)) for name in ("pgd", "square", "rays", "diva", "substitute")]
        ['gradient', 'score', 'decision', 'differential', 'substitute']
    """
    if getattr(attack, "needs_reference", False):
        return "differential"
    if getattr(attack, "imitates", False):
        return "substitute"
    if attack.kind == "gradient":
        return "gradient"
    return "decision" if getattr(attack, "labels_only", False) else "score"


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """Candidates that something outside of a suite made.

    Attributes:
        attack: What made them.
        subject: What they were made for.
        evidence: What it looked at.
        rows: ``(n,)``; the images they belong to.
        images: ``(n, C, H, W)`` inside the budget.
        queries: For each subject that was asked ``(N,)``; how often about each image.
        forward_passes: Images forward through differentiable models.
        backward_passes: Images that a gradient came back for.
        seconds: Wall time.
    """

    attack: str
    subject: str
    evidence: Evidence
    rows: Rows
    images: FloatNCHW
    queries: Mapping[str, npt.NDArray[np.int64]]
    forward_passes: int
    backward_passes: int
    seconds: float


def judge_made(made: Made, judged: Sequence[Seat], split: Split) -> Entry:
    """Try candidates on every judged subject, for images that one of them still survives on."""
    started = time.perf_counter()
    before = sum(other.counted.total for other in judged)
    for other in judged:
        other.counted.queries += made.queries.get(other.name, 0)
    robust = {other.name: other.clean.copy() for other in judged}
    tried: Flags = np.zeros(len(split), dtype=np.bool_)
    tried[made.rows] = True
    tried &= np.any([other.robust for other in judged], axis=0)
    rows, images = made.rows[tried[made.rows]], made.images[tried[made.rows]]
    for other in judged:
        broke = other.replay(images, rows, split)
        for seat in other.covers:
            robust[seat.name][rows[broke & seat.clean[rows]]] = False
    return Entry(
        attack=made.attack,
        kind="gradient" if made.backward_passes else "query",
        subject=made.subject,
        crafted_on="both",
        tried=tried,
        robust=robust,
        queries=sum(other.counted.total for other in judged) - before,
        forward_passes=made.forward_passes,
        backward_passes=made.backward_passes,
        zero_gradient_share=0.0,
        seconds=made.seconds + time.perf_counter() - started,
        notes=(),
        evidence=made.evidence,
    )


class Round:
    """One attack crafted for one subject, over all images that are still worth it."""

    def __init__(
        self, text: str, attack: Attack, crafter: Crafter, seat: Seat, judged: Sequence[Seat], split: Split
    ) -> None:
        self.text, self.attack, self.crafter, self.seat = text, attack, crafter, seat
        self.judged, self.split = judged, split
        self.tried: Flags = np.zeros(len(split), dtype=np.bool_)
        self.robust = {other.name: other.clean.copy() for other in judged}
        self.replaced = 0

    def run(self, batch_size: int, progress: Progress | None) -> Entry:
        """Attack in batches and return what came of it; the one loop over batches of a suite."""
        started = time.perf_counter()
        before = sum(other.counted.total for other in self.judged)
        unbooked = self.seat.counted.unbooked
        rows = np.flatnonzero(self.seat.clean & self._open())
        with (progress or Silent()).stage(f"{self.text} on {self.seat.name}", len(rows)) as advance:
            for group in groups(rows, group_size(self.attack, batch_size, self.split.images[0].nbytes)):
                self._attack(group)
                advance(len(group))
        cost = self.crafter.cost
        return Entry(
            attack=self.text,
            kind=self.attack.kind,
            subject=self.seat.name,
            crafted_on=self.seat.subject.crafted_on(self.attack.kind),
            tried=self.tried,
            robust=self.robust,
            queries=sum(other.counted.total for other in self.judged) - before,
            forward_passes=cost.forward,
            backward_passes=cost.backward,
            zero_gradient_share=zero_gradient_share(cost),
            seconds=time.perf_counter() - started,
            notes=remarks(cost, self.replaced, self.seat.counted.unbooked - unbooked),
            evidence=evidence_of(self.attack),
        )

    def _open(self) -> Flags:
        """Say which images some judged subject still survives on, ``(N,)``."""
        return np.asarray(np.any([other.robust for other in self.judged], axis=0))

    def _attack(self, group: Rows) -> None:
        """Attack the images that the subject survives; then push on where a candidate was not enough for all.

        An attack that stops at success leaves its candidate just behind the border of its own model, where other forms
        of the model often disagree. Going on beyond it is what makes a transferred candidate a fair try.
        """
        alive = self.seat.robust[group]
        proposal = self._craft(group[alive], push=False)
        if self.attack.kind == "query":
            return
        enough = np.zeros(len(group), dtype=np.bool_)
        enough[alive] = ~proposal.stopped  # these had the full number of steps
        self._craft(group[~enough & self._open()[group]], push=True)

    def _craft(self, rows: Rows, *, push: bool) -> Proposal:
        x, y = self.split.images[rows], self.split.labels[rows]
        if not len(rows):
            return Proposal(images=x, stopped=np.zeros(0, dtype=np.bool_), replaced=0)
        proposal = self.crafter.craft(x, y, rows, push=push)
        self.tried[rows] = True
        self.replaced += proposal.replaced
        for other in self.judged:
            broke = other.replay(proposal.images, rows, self.split)
            for seat in other.covers:
                self.robust[seat.name][rows[broke & seat.clean[rows]]] = False
        return proposal
