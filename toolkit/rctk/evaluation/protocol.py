"""The deployed protocol: a fixed set of attacks in tiers, cheap ones first, whose worst case per image is the headline.

Each tier is a kind of evidence about an engine, with a stated budget. An image that broke everywhere is not attacked
again, so the whole costs little more than its last tier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rctk.attacks import ATTACKS
from rctk.attacks.attack import norms
from rctk.evaluation.rounds import Entry
from rctk.evaluation.suite import SuiteResult
from rctk.threat import Norm
from rctk_export.registry import unknown

Tier = Literal["transfer-float", "transfer-twin", "substitute", "score", "decision", "differential"]
TIERS: Mapping[Tier, str] = {
    "transfer-float": "white-box on the float parent, replayed",
    "transfer-twin": "white-box on the twin of the very file, replayed",
    "substitute": "white-box on a network trained on the engine's classes, replayed",
    "score": "queries that read the engine's logits",
    "decision": "queries that read the engine's classes only",
    "differential": "search for what the engine gets wrong and the float model right, and the reverse",
}
"""The tiers in the order in which they run, and what each is."""
SURVIVED, MISCLASSIFIED = "survived", "misclassified"
LETTERS: Mapping[str, str] = {
    "F": "transfer-float",
    "T": "transfer-twin",
    "U": "substitute",
    "S": "score",
    "D": "decision",
    "X": "differential",
    ".": SURVIVED,
    "-": MISCLASSIFIED,
}
"""One letter per outcome: how records keep what happened to every image."""
LEAST_CORRECT = 20
"""Fewest images that a subject must get right: with fewer, an interval is wider than 40 points."""
DEPLOYED = "deployed"
FLOAT = "float"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named budget. An attack that does not know the norm of the threat model is left out.

    Attributes:
        name: Of the preset.
        gradient: Attacks crafted on float and on twin.
        substitute: Attacks on a network that imitates the engine.
        score: Query attacks that read logits.
        decision: Query attacks that read classes.
        differential: Searches of :func:`rctk.evaluation.differential.differential`.
        audit_samples: Images that the masking audit looks at.
    """

    name: str
    gradient: tuple[str, ...]
    substitute: tuple[str, ...]
    score: tuple[str, ...]
    decision: tuple[str, ...]
    differential: tuple[str, ...]
    audit_samples: int

    @property
    def attacks(self) -> tuple[str, ...]:
        """All attacks in the order in which they run; the differential searches follow."""
        return (*self.gradient, *self.substitute, *self.score, *self.decision)

    def attacks_in(self, norm: Norm) -> tuple[str, ...]:
        """Return the attacks that search in ``norm``.

        Example:
            >>> PROTOCOLS["quick"].attacks_in("l2")[-1]
            'surfree:queries=200'
        """
        return tuple(text for text in self.attacks if norm in norms(ATTACKS.build(text)))


PROTOCOLS: Mapping[str, Protocol] = {
    preset.name: preset
    for preset in (
        Protocol(
            name="quick",
            gradient=("apgd-ce:steps=25", "apgd-t:steps=25,targets=3"),
            substitute=("substitute:rounds=3,epochs=5,steps=25",),
            score=("square:queries=200",),
            decision=("rays:queries=200", "surfree:queries=200"),
            differential=("border-walk:steps=15", "disagreement:queries=20"),
            audit_samples=48,
        ),
        Protocol(
            name="standard",
            gradient=("autoattack:version=economy,queries=0",),  # Square has a tier of its own
            substitute=("substitute:rounds=4,steps=100",),
            score=("square:queries=1000",),
            decision=("rays:queries=1000", "surfree:queries=1000"),
            differential=("diva", "border-walk:steps=50", "disagreement:queries=200"),
            audit_samples=128,
        ),
        Protocol(
            name="full",
            gradient=("apgd-ce:steps=100", "apgd-dlr:steps=100", "apgd-t:steps=100"),
            substitute=("substitute:rounds=6,steps=100",),
            score=("square:queries=5000",),
            decision=("rays:queries=5000", "surfree:queries=5000", "hopskipjump:queries=5000"),
            differential=("diva", "pgd", "border-walk:steps=100", "disagreement:queries=1000"),
            audit_samples=256,
        ),
    )
}
"""Presets by name: ``quick`` for continuous integration, ``standard`` for a report, ``full`` for a paper."""


def protocol_named(text: str) -> Protocol:
    """Return a preset by what users write: ``quick``, ``deployed:quick``, or ``deployed`` for the standard one.

    Example:
        >>> protocol_named("deployed").name, protocol_named("deployed:full").name
        ('standard', 'full')
    """
    head, _, tail = text.partition(":")
    name = (tail or "standard") if head == DEPLOYED else text
    if name not in PROTOCOLS:
        raise unknown("protocol", text, [*PROTOCOLS, DEPLOYED, *(f"{DEPLOYED}:{preset}" for preset in PROTOCOLS)])
    return PROTOCOLS[name]


def tier_of(entry: Entry) -> Tier:
    """Return the tier that an entry of the suite belongs to."""
    if entry.evidence != "gradient":
        return entry.evidence
    return "transfer-float" if entry.crafted_on == "float" else "transfer-twin"


def broken_by(result: SuiteResult, subject: str) -> npt.NDArray[np.str_]:
    """Return for every image, ``(N,)``, the tier that broke it first, or ``survived`` or ``misclassified``."""
    outcome = np.full(result.samples, SURVIVED, dtype="<U16")
    for entry in result.entries:
        if subject in entry.robust:
            broke = result.clean[subject] & entry.tried & ~entry.robust[subject] & (outcome == SURVIVED)
            outcome[broke] = tier_of(entry)
    outcome[~result.clean[subject]] = MISCLASSIFIED
    return outcome


def tier_counts(outcome: Sequence[str] | npt.NDArray[np.str_]) -> dict[str, int]:
    """Count the outcomes of :func:`broken_by`, every tier named, also with none.

    Example:
        >>> tier_counts(["score", "survived", "survived"])["survived"]
        2
    """
    names, counts = np.unique(np.asarray(outcome), return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {name: int(found.get(name, 0)) for name in (*TIERS, SURVIVED, MISCLASSIFIED)}


def letters(outcome: Sequence[str] | npt.NDArray[np.str_]) -> str:
    """Return one letter of :data:`LETTERS` per image.

    Example:
        >>> letters(["score", "survived", "misclassified"])
        'S.-'
    """
    letter = {name: letter for letter, name in LETTERS.items()}
    return "".join(letter[str(name)] for name in outcome)
