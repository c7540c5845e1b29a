"""What the deployed protocol found: tiers, differential rates, the audit, and the sentence that may be quoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.evaluation.differential import DifferentialResult
from rctk.evaluation.protocol import LETTERS, SURVIVED, TIERS, Protocol, Tier, broken_by, letters, tier_counts, tier_of
from rctk.evaluation.shares import Share
from rctk.evaluation.subjects import EIGHT_BIT
from rctk.evaluation.suite import SuiteResult

if TYPE_CHECKING:
    from rctk.audit import Audit


class TierRow(NamedTuple):
    """One tier and one subject.

    Attributes:
        tier: Its name.
        ran: Whether it did.
        broken: Images that it broke first.
        left: Robust accuracy after this tier and all before it, with its interval.
    """

    tier: Tier
    ran: bool
    broken: int
    left: Share

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"tier": self.tier, "ran": self.ran, "broken": self.broken, "left": self.left._asdict()}


@dataclass(frozen=True, kw_only=True)
class ProtocolResult:
    """Outcome of a protocol.

    Attributes:
        protocol: The preset.
        suite: All attacks, and the images that stand in the end.
        differential: How far float model and engine were driven apart; None where the tier did not run.
        audits: The masking audit of every judged form.
        not_run: Each tier that did not run, and why.
        not_audited: Why there is no audit, else ``""``.
    """

    protocol: Protocol
    suite: SuiteResult
    differential: DifferentialResult | None
    audits: tuple[Audit, ...]
    not_run: Mapping[Tier, str]
    not_audited: str

    def broken_by(self, subject: str) -> npt.NDArray[np.str_]:
        """Return for every image the tier that broke it first, or what else became of it, ``(N,)``."""
        return broken_by(self.suite, subject)

    def tiers(self, subject: str) -> list[TierRow]:
        """Return one row per tier in the order in which they ran."""
        counts = tier_counts(self.broken_by(subject))
        left, rows = int(self.suite.clean[subject].sum()), []
        for tier in TIERS:
            left -= counts[tier]
            rows.append(TierRow(tier, tier not in self.not_run, counts[tier], share_of(left, self.suite.samples)))
        return rows

    def costs(self) -> dict[Tier, dict[str, float]]:
        """Return seconds, queries and passes of every tier, for all subjects together."""
        zero = {"seconds": 0.0, "queries": 0, "forward_passes": 0, "backward_passes": 0}
        found: dict[Tier, dict[str, float]] = {tier: dict(zero) for tier in TIERS}
        for entry in self.suite.entries:
            for name in zero:
                found[tier_of(entry)][name] += getattr(entry, name)
        return found

    def audit(self, subject: str) -> Audit | None:
        """Return the audit of a subject, also of one that sees rounded images."""
        name = subject.removesuffix(EIGHT_BIT)
        return next((audit for audit in self.audits if audit.name == name), None)

    def believed(self, subject: str) -> bool:
        """Say whether the robust accuracy may be believed: no check of the audit fails."""
        audit = self.audit(subject)
        return audit is None or audit.verdict != "fails"

    def disbelief(self) -> str:
        """Return why no comparison of these robust accuracies can be believed; ``""`` where no audit fails."""
        failing = [audit for audit in self.audits if audit.failed]
        words = "; ".join(f"{audit.name} fails {', '.join(audit.failed)}" for audit in failing)
        return f"robust accuracies are not to be believed, masking audit: {words}" if failing else ""

    def verdict(self, subject: str) -> str:
        """Return the sentence that a reader may quote."""
        robust = share_of(int(self.suite.robust[subject].sum()), self.suite.samples)
        number = f"{_percent(robust.hits / robust.samples)}"
        audit = self.audit(subject)
        if audit is not None and audit.verdict == "fails":
            return (
                f"{subject}: a robust accuracy of {number} is not to be believed: the masking audit fails "
                f"{', '.join(audit.failed)}"
            )
        ran = [tier for tier in TIERS if tier not in self.not_run]
        repeats = self.suite.settings.get("repeats", 1)
        seeds = f" with {repeats} seeds" if repeats != 1 else ""
        sentence = (
            f"{subject}: robust accuracy at most {number} ({_percent(robust.low)} to {_percent(robust.high)}, "
            f"{robust.samples} images), worst case of {len(ran)} tiers{seeds}"
        )
        if self.not_run:
            sentence += f"; not run: {', '.join(self.not_run)}, so a complete protocol may find less"
        if audit is None:
            return f"{sentence}; not audited for masked gradients: {self.not_audited}"
        doubts = f", suspicious: {', '.join(audit.suspicious)}" if audit.suspicious else ""
        return f"{sentence}; masking audit: no check fails{doubts}"

    def as_dict(self, subject: str) -> dict[str, Any]:
        """Return JSON values for a record about ``subject``."""
        costs, audit, outcome = self.costs(), self.audit(subject), self.broken_by(subject)
        return {
            "name": self.protocol.name,
            "verdict": self.verdict(subject),
            "believed": self.believed(subject),
            "samples": self.suite.samples,
            "counts": tier_counts(outcome),
            "survived": int((outcome == SURVIVED).sum()),
            "tiers": [row.as_dict() | costs[row.tier] for row in self.tiers(subject)],
            "not_run": dict(self.not_run),
            "broken_by": letters(outcome),
            "letters": dict(LETTERS),
            "audit": {"verdict": "not run", "found": self.not_audited} if audit is None else audit.as_dict(),
            "differential": None if self.differential is None else self.differential.as_dict(),
        }


def share_of(hits: int, samples: int) -> Share:
    """Return a share from counts, with its interval."""
    flags = np.zeros(samples, dtype=np.bool_)
    flags[:hits] = True
    return Share.of(flags)


def _percent(value: float) -> str:
    return f"{value:.1%}"
