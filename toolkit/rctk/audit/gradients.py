"""Checks on what gradients tell."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from rctk.attacks.gradients import frozen
from rctk.attacks.losses import negative_margin
from rctk.audit.examined import Examined, LossName
from rctk.audit.result import CheckResult, Verdict, graded

LOSS_NAMES: tuple[LossName, ...] = ("ce", "margin")
ASCENT_STEPS = 10
CLIMB = 0.1
"""Length of a step of the ascent check as a share of eps."""


def zero(subject: Examined) -> CheckResult:
    """Gradients exist: an image whose gradient is exactly zero is not attacked at all."""
    shares = {}
    for loss in LOSS_NAMES:
        for noise in (False, True):
            gradient = subject.gradients(loss, noise=noise).flatten(1).abs().amax(dim=1)
            shares[f"{loss}, {'random start' if noise else 'clean'}"] = float((gradient == 0).float().mean())
    where, share = max(shares.items(), key=lambda item: item[1])
    verdict = graded(share, suspicious=0.0, fails=0.01)
    return CheckResult(
        check="gradients.zero",
        verdict=verdict,
        found=f"{share:.1%} of the gradients are zero ({where})",
        limits="suspicious above 0, fails above 1 %",
        advice=""
        if verdict == "pass"
        else "use a margin loss, rescale the logits, or differentiate a smooth surrogate",
    )


def tiny(subject: Examined) -> CheckResult:
    """Gradients are of one order over images: a large share far below the median is lost to float32 next."""
    gradient = subject.gradients("ce").flatten(1).norm(dim=1)
    typical = float(subject.gradients("margin").flatten(1).norm(dim=1).median())
    share = float((gradient < 1e-12 * max(typical, 1e-30)).float().mean())
    verdict = graded(share, suspicious=0.01, fails=0.5)
    return CheckResult(
        check="gradients.tiny",
        verdict=verdict,
        found=f"{share:.1%} of the cross-entropy gradients are below 1e-12 of the median margin gradient",
        limits="suspicious above 1 %, fails above 50 %",
        advice="" if verdict == "pass" else "the logits are so large that the cross-entropy saturates: rescale them",
    )


def cosine(subject: Examined) -> CheckResult:
    """The twin's gradients point where the float model's do, so that attacks carry over."""
    if subject.parent is None or subject.parent.model is None:
        return CheckResult(
            check="gradients.cosine", verdict="not run", found="no float parent", limits="suspicious below 0.5"
        )
    own, other = (form.gradients("margin").flatten(1) for form in (subject, subject.parent))
    value = float(F.cosine_similarity(own, other, dim=1).mean())
    verdict: Verdict = "suspicious" if value < 0.5 else "pass"
    return CheckResult(
        check="gradients.cosine",
        verdict=verdict,
        found=f"mean cosine {value:.2f} with the float model",
        limits="suspicious below 0.5",
        advice="" if verdict == "pass" else "attack both and the average of their logits; neither alone is enough",
    )


def ascent(subject: Examined) -> CheckResult:
    """Small steps along the gradient raise the loss; where they do not, the gradient misleads."""
    assert subject.model is not None
    rises = steps = 0
    with frozen(subject.model):
        for images, labels in subject.split.batches(subject.batch_size):
            x, y = torch.from_numpy(images), torch.from_numpy(labels)
            before = None
            for _ in range(ASCENT_STEPS + 1):
                leaf = x.clone().requires_grad_()
                with torch.enable_grad():
                    value = negative_margin(subject.model(leaf), y, y)
                if not value.requires_grad:
                    return _ascent(0.0)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
                if before is not None:
                    rises += int((value.detach() > before).sum())
                    steps += len(x)
                before = value.detach()
                x = (x + CLIMB * subject.threat.eps * gradient.sign()).clamp(0, 1)
    return _ascent(rises / steps)


def _ascent(share: float) -> CheckResult:
    verdict = graded(1 - share, suspicious=0.2, fails=0.5)
    return CheckResult(
        check="gradients.ascent",
        verdict=verdict,
        found=f"the loss rises in {share:.1%} of small steps along the gradient",
        limits="suspicious below 80 %, fails below 50 %",
        advice="" if verdict == "pass" else "the loss surface is rugged: average gradients, or use a smooth surrogate",
    )
