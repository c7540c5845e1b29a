"""Checks that stronger attacks are stronger."""

from __future__ import annotations

from itertools import pairwise

from rctk.audit.examined import Examined
from rctk.audit.result import CheckResult, Verdict

PGD = "pgd:steps=20"
BOTH_PGD = (PGD, f"{PGD},loss=margin")
"""Cross-entropy and a loss that is free of the scale of the logits, with equal budgets.

What other evidence breaks counts against gradients only where both leave it. Cross-entropy alone is weak on small
logits, where the gradient of an image goes to all classes at once, and blind on large ones, where it vanishes: a fault
of that loss and not of the network, and every protocol and AutoAttack run a margin loss beside it (Carlini & Wagner,
"Towards Evaluating the Robustness of Neural Networks", S&P 2017; Croce & Hein, ICML 2020).
"""
BASE = (*BOTH_PGD, "apgd-ce:steps=100", "apgd-dlr:steps=100")
"""The strongest gradient attacks of the audit, in the order in which they run."""
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)


def beyond(excess: int, samples: int, *, suspicious: float, fails: float) -> Verdict:
    """Grade ``excess`` images as a share of ``samples``; one image alone is chance, two are not yet a failure."""
    share = excess / samples
    if excess > 2 and share > fails:
        return "fails"
    return "suspicious" if excess > 1 and share > suspicious else "pass"


def one_step(subject: Examined) -> CheckResult:
    """Many steps break at least what one step breaks."""
    many, one = (int(subject.robust(attack).sum()) for attack in (PGD, "fgsm"))
    verdict: Verdict = "fails" if many > one + 1 else "pass"
    return CheckResult(
        check="strength.one-step",
        verdict=verdict,
        found=f"{many} of {subject.samples} survive 20 steps, {one} survive one step",
        limits="fails where more than one image more survives",
        advice=""
        if verdict == "pass"
        else "the iterative attack is broken by the loss surface: try a margin loss and restarts",
    )


def noise(subject: Examined) -> CheckResult:
    """Random noise of the same size breaks nothing that a gradient attack leaves."""
    left = subject.surviving(BOTH_PGD)
    broken = int((left & ~subject.robust("noise:tries=100")).sum())
    verdict: Verdict = "fails" if broken > 1 else "suspicious" if broken else "pass"
    return CheckResult(
        check="strength.noise",
        verdict=verdict,
        found=f"100 draws of noise break {broken} of {int(left.sum())} survivors",
        limits="suspicious above 0, fails above 1",
        advice="" if verdict == "pass" else "the gradient attack is weaker than chance: its gradients are masked",
    )


def monotone(subject: Examined) -> CheckResult:
    """A larger budget never leaves more survivors."""
    counts = [int(subject.robust(PGD, factor=factor).sum()) for factor in FACTORS if _fits(subject, factor)]
    rise = max([later - earlier for earlier, later in pairwise(counts)], default=0)
    verdict = beyond(rise, subject.samples, suspicious=0.0, fails=0.005)
    return CheckResult(
        check="strength.monotone",
        verdict=verdict,
        found=f"survivors at {', '.join(f'{f:g}' for f in FACTORS[: len(counts)])} x eps: {counts}",
        limits="suspicious where two more survive, fails above 0.5 points",
        advice="" if verdict == "pass" else "the attack does not use its budget: lengthen its steps, add restarts",
    )


def _fits(subject: Examined, factor: float) -> bool:
    return subject.threat.norm != "linf" or subject.threat.eps * factor <= 1


def unbounded(subject: Examined) -> CheckResult:
    """Without a limit every image can be broken."""
    factor = 1 / subject.threat.eps if subject.threat.norm == "linf" else 100.0
    left = float(subject.robust("pgd:steps=40", factor=factor).mean())
    classes = subject.logits.shape[1]
    limit = 1 / classes + 0.02
    verdict: Verdict = "fails" if left > limit else "pass"
    return CheckResult(
        check="strength.unbounded",
        verdict=verdict,
        found=f"{left:.1%} survive without a limit",
        limits=f"fails above chance and 2 points, {limit:.1%}",
        advice="" if verdict == "pass" else "the attack is blind, not the model robust: no number of it can be trusted",
    )


def converged(subject: Examined) -> CheckResult:
    """Twice the steps leave no fewer images.

    What counts is how many images survive, not which: two runs of any attack miss different ones by chance.
    """
    short, long = (int(subject.robust(f"apgd-ce:steps={steps}").sum()) for steps in (50, 100))
    verdict = beyond(short - long, subject.samples, suspicious=0.005, fails=0.01)
    return CheckResult(
        check="strength.converged",
        verdict=verdict,
        found=f"{short} of {subject.samples} survive 50 steps of APGD, {long} survive 100",
        limits="suspicious above 0.5 points, fails above 1",
        advice="" if verdict == "pass" else "use more steps",
    )


def scale(subject: Examined) -> CheckResult:
    """The size of the logits does not decide how many images survive cross-entropy and a scale-free loss together.

    A second run of any attack breaks a few images more by its other random starts alone, so what such a run breaks
    without rescaling is taken off.
    """
    typical = max(float(abs(subject.logits).max(axis=1).mean()), 1e-12)
    raw, entropy = subject.surviving(BOTH_PGD), int(subject.robust(PGD).sum())
    chance = int((raw & ~subject.robust(PGD, again=1)).sum())
    rescaled = max(int((raw & ~subject.robust(PGD, scale=wanted / typical)).sum()) for wanted in (1.0, 10.0))
    verdict = beyond(rescaled - chance, subject.samples, suspicious=0.02, fails=0.05)
    return CheckResult(
        check="strength.scale",
        verdict=verdict,
        found=(
            f"{int(raw.sum())} of {subject.samples} survive PGD with cross-entropy and margin, {entropy} cross-entropy "
            f"alone; rescaling logits from {typical:.3g} to 1 or 10 breaks {rescaled} of them, running again {chance}"
        ),
        limits="suspicious where rescaling breaks 2 points more, fails above 5",
        advice="" if verdict == "pass" else "use scale-free losses (margin, DLR) or rescale the logits before the loss",
    )


def square(subject: Examined) -> CheckResult:
    """An attack without gradients breaks nothing that gradient attacks leave."""
    left = subject.surviving(BASE)
    broken = int((left & ~subject.robust("square:queries=500")).sum())
    verdict = beyond(broken, subject.samples, suspicious=0.002, fails=0.01)
    return CheckResult(
        check="blackbox.square",
        verdict=verdict,
        found=f"Square (500 queries) breaks {broken} of {int(left.sum())} survivors of PGD and APGD, two losses each",
        limits="suspicious above 0.2 points, fails above 1 point",
        advice="" if verdict == "pass" else "gradients are masked: the black-box number is the better upper bound",
    )
