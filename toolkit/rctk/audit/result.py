"""What a check of the audit says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["pass", "suspicious", "fails", "not run"]
ORDER: tuple[Verdict, ...] = ("fails", "suspicious", "pass", "not run")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One line of the audit.

    Attributes:
        check: Id of the check.
        verdict: ``fails`` blocks the headline number, ``suspicious`` is printed beside it.
        found: The number that was measured, in words.
        limits: Its thresholds, in words.
        advice: What to do; empty where nothing is to be done.
    """

    check: str
    verdict: Verdict
    found: str
    limits: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def graded(value: float, *, suspicious: float, fails: float) -> Verdict:
    """Grade a number of which more is worse; a value on a threshold still keeps it.

    Example:
        >>> [graded(value, suspicious=0.0, fails=0.01) for value in (0.0, 0.005, 0.02)]
        ['pass', 'suspicious', 'fails']
    """
    return "fails" if value > fails else "suspicious" if value > suspicious else "pass"


def worst(results: Iterable[CheckResult]) -> Verdict:
    """Return the worst verdict; ``not run`` where nothing ran."""
    found = {result.verdict for result in results}
    return next((verdict for verdict in ORDER if verdict in found), "not run")
