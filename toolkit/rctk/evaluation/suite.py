"""Attacks several forms of one model on the same images, and tries every candidate on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Attack
from rctk.data.split import Split
from rctk.evaluation.both_grids import RoundedSeat
from rctk.evaluation.crafting import CRAFTERS
from rctk.evaluation.journal import Journal
from rctk.evaluation.judge import Flags
from rctk.evaluation.rounds import Entry, Made, Round, judge_made
from rctk.evaluation.subjects import Seat, Subject
from rctk.progress import Progress
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import AttackError, OptionError

__all__ = ["Entry", "Subject", "SuiteResult", "attack_subjects"]


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What all attacks did to all subjects, image by image.

    Attributes:
        clean: For each subject ``(N,)``; the image as it is is classified correctly.
        robust: For each subject ``(N,)``; it is, and no candidate broke it: the union over all entries.
        adversarial: For each subject ``(N, C, H, W)``; the candidate that broke the image, else the last one
            tried, else the original. ``robust`` is what the subject said about exactly these images in one last pass.
        queries: For each subject ``(N,)``; images that it classified.
        entries: One for each attack and subject it was crafted for, in the order they ran.
        settings: Attacks, seed, batch size and whether candidates were tried across subjects.
        notes: What a reader should know.
    """

    clean: Mapping[str, Flags]
    robust: Mapping[str, Flags]
    adversarial: Mapping[str, FloatNCHW]
    queries: Mapping[str, npt.NDArray[np.int64]]
    entries: tuple[Entry, ...]
    settings: Mapping[str, object]
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(next(iter(self.clean.values())))

    def clean_accuracy(self, subject: str) -> float:
        """Share of images that ``subject`` classifies correctly."""
        return float(self.clean[subject].mean())

    def robust_accuracy(self, subject: str) -> float:
        """Share of images on which ``subject`` survives everything: an upper bound on its robustness."""
        return float(self.robust[subject].mean())

    def entry(self, attack: str, subject: str) -> Entry:
        """Return the entry of ``attack`` as crafted for ``subject``."""
        for entry in self.entries:
            if (entry.attack, entry.subject) == (attack, subject):
                return entry
        known = ", ".join(f"{entry.attack} on {entry.subject}" for entry in self.entries)
        raise OptionError(f"no entry of {attack} on {subject}; there are: {known}")

    @property
    def forward_passes(self) -> int:
        """Images forward through differentiable models."""
        return sum(entry.forward_passes for entry in self.entries)

    @property
    def backward_passes(self) -> int:
        """Images that a gradient came back for."""
        return sum(entry.backward_passes for entry in self.entries)

    @property
    def seconds(self) -> float:
        """Wall time of all entries."""
        return sum(entry.seconds for entry in self.entries)


def attack_subjects(  # noqa: PLR0913 - who, on what, by what, how much, then how
    subjects: Sequence[Subject],
    split: Split,
    attacks: Sequence[str],
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    cross: bool = True,
    rounded: bool = False,
    ordered: bool = False,
    last: Callable[[], Sequence[Made]] | None = None,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> SuiteResult:
    """Attack every subject on the same images, the cheapest attack first.

    Args:
        subjects: Forms of one model.
        split: Images and labels; all subjects see the same ones in the same order.
        attacks: Names with settings, such as ``square:queries=500``.
        threat: The budget.
        seed: Same seed, batch size and machine: same result, bit for bit.
        batch_size: Most images in one pass.
        cross: Try each candidate on every subject, and attack an image as long as any of them survives, so that no
            subject is attacked less than another. Otherwise each subject meets only what was crafted for it.
        rounded: Judge every candidate a second time after rounding it to 8-bit pixels inside the budget, as subjects
            called ``engine (8-bit)`` and so on.
        ordered: Run first the gradient attacks, on one subject after the other, then the query attacks, each in the
            given order; by default the cheapest attack runs first on all.
        last: Called after the attacks; makes further candidates, which are judged like those of an attack.
        progress: Told about every batch of images.
        journal: Keeps finished batches; a run that was stopped finds them again and ends with the same result.

    Example:
        >>> bright = lambda x: x.mean(axis=(1, 2, 3))[:, None] * np.float32([-1, 1]) + np.float32([0.5, -0.5])
        >>> images = np.full((2, 1, 4, 4), 0.45, np.float32) * np.float32([1, 0.2])[:, None, None, None]
        >>> split = Split(name="grey", images=images, labels=np.zeros(2, np.int64))
        >>> engine = Subject(name="engine", predict=bright)
        >>> threat = ThreatModel(norm="linf", eps=0.1)
        >>> attack_subjects([engine], split, ["square:queries=50"], threat, seed=0, batch_size=64).robust["engine"]
        array([False,  True])
    """
    methods = [(text, ATTACKS.build(text)) for text in attacks]
    if not ordered:
        methods.sort(key=lambda pair: pair[1].passes)
    seats = _seats(subjects, split, batch_size)
    judged = [seat for seat in seats if seat.subject.judged]
    judged += [RoundedSeat(seat, split, threat) for seat in judged] if rounded else []
    entries, notes = [], list(_missing(subjects, methods))
    pairs = [(text, attack, seat) for text, attack in methods for seat in seats]
    if ordered:
        pairs.sort(key=lambda pair: seats.index(pair[2]) if pair[1].kind == "gradient" else len(seats))
    for text, attack, seat in pairs:
        against = judged if cross else [other for other in judged if seat in other.covers]
        if not against or not _crafts(attack, seat.subject):
            continue
        crafter = CRAFTERS.load(attack.kind)(attack, threat, seed, seat.counted, seat.subject.model)
        if journal is not None:
            crafter = journal.wrap(crafter, attack, threat, seat.name, seat.counted)
        round_ = Round(text, attack, crafter, seat, against, split)
        entries.append(round_.run(batch_size, progress))
    entries += [judge_made(made, judged, split) for made in (last() if last is not None else ())]
    for seat in judged:
        notes.extend(seat.verify(split))
    return SuiteResult(
        clean={seat.name: seat.clean for seat in judged},
        robust={seat.name: seat.robust for seat in judged},
        adversarial={seat.name: seat.adversarial for seat in judged},
        queries={seat.name: seat.counted.queries for seat in judged},
        entries=tuple(entries),
        settings={"attacks": tuple(attacks), "seed": seed, "batch_size": batch_size, "cross": cross}
        | ({"rounded": True} if rounded else {}),
        notes=tuple(notes),
    )


def _crafts(attack: Attack, subject: Subject) -> bool:
    """Say whether an attack makes candidates for a subject; one that only serves to craft on is not asked questions."""
    if attack.kind == "query" or getattr(attack, "needs_reference", False):
        return subject.judged and (attack.kind == "query" or subject.model is not None)
    return subject.model is not None


def _seats(subjects: Sequence[Subject], split: Split, batch_size: int) -> list[Seat]:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise OptionError(f"a suite needs one or more subjects with different names, got {names}")
    if not any(subject.judged for subject in subjects):
        raise OptionError(
            f"nothing to judge: {', '.join(names)} only serve to craft on; add the float model or an engine"
        )
    return [Seat(subject, split, batch_size) for subject in subjects]


def _missing(subjects: Sequence[Subject], methods: Sequence[tuple[str, Attack]]) -> list[str]:
    """Word which subjects gradient attacks are not crafted on; :class:`AttackError` where there is none to craft on."""
    gradient = [text for text, attack in methods if attack.kind == "gradient"]
    blind = [subject.name for subject in subjects if subject.model is None]
    if gradient and len(blind) == len(subjects):
        raise AttackError(
            f"{', '.join(gradient)} need gradients and no subject has a torch model; give the float model or a twin, "
            "or use query attacks such as square"
        )
    return [f"{name} has no differentiable model: no gradient attack was crafted on it" for name in blind if gradient]
