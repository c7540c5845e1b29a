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

from rctk.evaluation.suite import SuiteResult

Tier = Literal["transfer-float", "transfer-twin", "score", "decision"]
TIERS: Mapping[Tier, str] = {
    "transfer-float": "white-box on the float parent, replayed",
    "transfer-twin": "white-box on the twin of the very file, replayed",
    "score": "queries that read the engine's logits",
    "decision": "queries that read the engine's classes only",
}
"""Tiers that one run of a suite covers, and what each is."""
SURVIVED, MISCLASSIFIED = "survived", "misclassified"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named budget.

    Attributes:
        name: Of the preset.
        gradient: Attacks crafted on float and on twin.
        score: Query attacks that read logits.
        decision: Query attacks that read classes.
    """

    name: str
    gradient: tuple[str, ...]
    score: tuple[str, ...]
    decision: tuple[str, ...]

    @property
    def attacks(self) -> tuple[str, ...]:
        """All attacks, for :func:`rctk.evaluation.suite.attack_subjects`."""
        return (*self.gradient, *self.score, *self.decision)

    def tier(self, attack: str, crafted_on: str) -> Tier:
        """Return the tier of an entry of the suite."""
        if attack in self.score:
            return "score"
        if attack in self.decision:
            return "decision"
        return "transfer-float" if crafted_on == "float" else "transfer-twin"


PROTOCOLS: Mapping[str, Protocol] = {
    preset.name: preset
    for preset in (
        Protocol(
            name="quick",
            gradient=("apgd-ce:steps=20", "apgd-t:steps=20,targets=3"),
            score=("square:queries=100",),
            decision=("rays:queries=100",),
        ),
        Protocol(
            name="standard",
            gradient=("apgd-ce:steps=100", "apgd-t:steps=100"),
            score=("square:queries=1000",),
            decision=("rays:queries=1000",),
        ),
        Protocol(
            name="full",
            gradient=("apgd-ce:steps=100", "apgd-dlr:steps=100", "apgd-t:steps=100"),
            score=("square:queries=5000",),
            decision=("rays:queries=5000", "hopskipjump:queries=5000"),
        ),
    )
}
"""Presets by name: ``quick`` for continuous integration, ``standard`` for a report, ``full`` for a paper."""


def broken_by(result: SuiteResult, protocol: Protocol, subject: str) -> npt.NDArray[np.str_]:
    """Return for every image, ``(N,)``, the tier that broke it first, or ``survived`` or ``misclassified``."""
    outcome = np.full(result.samples, SURVIVED, dtype="<U16")
    for entry in result.entries:
        if subject in entry.robust:
            broke = result.clean[subject] & entry.tried & ~entry.robust[subject] & (outcome == SURVIVED)
            outcome[broke] = protocol.tier(entry.attack, entry.crafted_on)
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


def not_run(result: SuiteResult, protocol: Protocol) -> list[str]:
    """Name the tiers that no entry belongs to, for example without a twin."""
    ran = {protocol.tier(entry.attack, entry.crafted_on) for entry in result.entries}
    return [tier for tier in TIERS if tier not in ran]
