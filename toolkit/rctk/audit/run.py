"""Run the checks and sum them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rctk.audit import fidelity, gradients, outputs, strength
from rctk.audit.examined import Examined
from rctk.audit.result import CheckResult, Verdict, worst
from rctk.progress import Progress, Silent
from rctk_kernels.errors import RctkError

Check = Callable[[Examined], CheckResult]
Keep = Callable[[str, Callable[[], CheckResult]], CheckResult]

ANY: Mapping[str, Check] = {
    "outputs.logits": outputs.logits,
    "outputs.repeat": outputs.repeat,
    "outputs.resolution": outputs.resolution,
}
"""Checks that need nothing but answers."""
WHITE_BOX: Mapping[str, Check] = {
    "gradients.zero": gradients.zero,
    "gradients.tiny": gradients.tiny,
    "gradients.ascent": gradients.ascent,
    "gradients.cosine": gradients.cosine,
    "strength.one-step": strength.one_step,
    "strength.noise": strength.noise,
    "strength.monotone": strength.monotone,
    "strength.unbounded": strength.unbounded,
    "strength.converged": strength.converged,
    "strength.scale": strength.scale,
    "blackbox.square": strength.square,
    "blackbox.transfer": fidelity.transfer,
    "fidelity.twin": fidelity.twin,
}
"""Checks that need a differentiable form."""
CHECKS: Mapping[str, Check] = {**ANY, **WHITE_BOX}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All checks of one form.

    Attributes:
        name: Of the form.
        samples: Images behind every check.
        results: One line per check, in the order they ran.
    """

    name: str
    samples: int
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst line; ``fails`` means that no robust accuracy of this form should be believed."""
        return worst(self.results)

    @property
    def failed(self) -> list[str]:
        """Checks that fail."""
        return [result.check for result in self.results if result.verdict == "fails"]

    @property
    def suspicious(self) -> list[str]:
        """Checks that raise a doubt."""
        return [result.check for result in self.results if result.verdict == "suspicious"]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        checks = [result.as_dict() for result in self.results]
        return {"name": self.name, "samples": self.samples, "verdict": self.verdict, "checks": checks}


def audit(subject: Examined, progress: Progress | None = None, keep: Keep | None = None) -> Audit:
    """Run every check that ``subject`` allows; one that cannot run says why and, where that is masking, fails.

    Args:
        subject: What is examined.
        progress: Told about every check.
        keep: Given the name of a check and what runs it; may return an earlier result instead.
    """
    results = []
    with (progress or Silent()).stage(f"audit {subject.name}", len(CHECKS)) as step:
        for name, check in CHECKS.items():
            if subject.model is None and name in WHITE_BOX:
                results.append(CheckResult(check=name, verdict="not run", found="no differentiable form", limits=""))
            else:
                results.append((keep or _run_now)(name, partial(_run, name, check, subject)))
            step(1)
    return Audit(name=subject.name, samples=subject.samples, results=tuple(results))


def _run_now(_: str, run: Callable[[], CheckResult]) -> CheckResult:
    return run()


def _run(name: str, check: Check, subject: Examined) -> CheckResult:
    try:
        return check(subject)
    except RctkError as error:
        return CheckResult(
            check=name,
            verdict="fails",
            found=f"could not run: {error}",
            limits="an attack must be able to run",
            advice="differentiate a smooth surrogate (straight-through), or report query attacks only",
        )
