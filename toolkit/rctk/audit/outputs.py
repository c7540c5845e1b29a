"""Checks on what the model answers."""

from __future__ import annotations

import numpy as np

from rctk.audit.examined import Examined
from rctk.audit.result import CheckResult, Verdict, graded
from rctk_export.evaluation_variant import score_resolution
from rctk_export.input_spec import FloatNK

REPEATS = 5
SUM_TOLERANCE = 1e-2  # int8 probabilities are rounded to steps of 1/256


def logits(subject: Examined) -> CheckResult:
    """Answers are logits: rows that lie in [0, 1] and sum to 1 went through a softmax, which flattens gradients."""
    found = subject.logits
    inside = (found >= -SUM_TOLERANCE).all() and (found <= 1 + SUM_TOLERANCE).all()
    sums = np.abs(found.sum(axis=1) - 1) <= SUM_TOLERANCE
    share = float(sums.mean()) if inside else 0.0
    one_hot = bool(inside and ((found == 0) | (found == 1)).all())
    return CheckResult(
        check="outputs.logits",
        verdict="fails" if share > 0.99 else "pass",
        found=f"{share:.0%} of the answers are {'one-hot' if one_hot else 'probabilities'}",
        limits="fails above 99 %",
        advice="take the softmax out of the graph; a gradient through it tells little" if share > 0.99 else "",
    )


def repeat(subject: Examined) -> CheckResult:
    """The same image gets the same answer; otherwise attacks must average over draws."""
    images = subject.split.images
    first = _unit(subject.logits)
    changed = distance = 0.0
    for _ in range(REPEATS - 1):
        again = np.concatenate([subject.predict(part) for part, _ in subject.split.batches(subject.batch_size)])
        changed = max(changed, float((again.argmax(1) != subject.logits.argmax(1)).mean()))
        distance = max(distance, float(np.linalg.norm(_unit(again) - first, axis=1).max()))
    verdict = "fails" if changed > 0 else graded(distance, suspicious=1e-4, fails=np.inf)
    return CheckResult(
        check="outputs.repeat",
        verdict=verdict,
        found=f"{changed:.1%} of {len(images)} classes change in {REPEATS} passes, unit logits by {distance:.1e}",
        limits="suspicious above 1e-4, fails where a class changes",
        advice="" if verdict == "pass" else "the model answers at random: average over draws (EOT)",
    )


def _unit(answers: FloatNK) -> FloatNK:
    length = np.linalg.norm(answers, axis=1, keepdims=True)
    return np.asarray(answers / np.maximum(length, 1e-12))


def resolution(subject: Examined) -> CheckResult:
    """Score attacks see small changes: coarse logits make them blind without making the model robust."""
    found = score_resolution(subject.logits)
    coarse = found.distinct < found.values / 4 and found.distinct < 1000
    verdict: Verdict = "suspicious" if coarse or found.tied > 0.01 else "pass"
    return CheckResult(
        check="outputs.resolution",
        verdict=verdict,
        found=f"{found.distinct} distinct values in {found.values} logits, {found.tied:.1%} of the images tied",
        limits="suspicious below 1000 values and a quarter of all, or above 1 % ties",
        advice=""
        if verdict == "pass"
        else "score attacks are lower-bound evidence here; attack a variant with unrounded logits",
    )
