"""Checks on engine against twin and float parent."""

from __future__ import annotations

import numpy as np
import torch

from rctk.audit.examined import Examined
from rctk.audit.result import CheckResult, graded
from rctk.audit.strength import BASE, beyond
from rctk_export.input_spec import FloatNCHW


def transfer(subject: Examined) -> CheckResult:
    """Images crafted on the float parent break nothing that a white-box attack leaves."""
    if subject.parent is None or subject.parent.model is None:
        return CheckResult(
            check="blackbox.transfer", verdict="not run", found="no float parent", limits="fails above 1 % of survivors"
        )
    left = subject.surviving(BASE)
    crafted = subject.parent.attacked("apgd-ce:steps=100").adversarial
    broken = int((left & (_classes(subject, crafted) != subject.split.labels)).sum())
    verdict = beyond(broken, max(int(left.sum()), 1), suspicious=0.0, fails=0.01)
    return CheckResult(
        check="blackbox.transfer",
        verdict=verdict,
        found=f"images made on the float model break {broken} of {int(left.sum())} white-box survivors",
        limits="suspicious above one image, fails above 1 % of the survivors",
        advice="" if verdict == "pass" else "the white-box attack is weaker than transfer: report the union of both",
    )


def twin(subject: Examined) -> CheckResult:
    """Engine and twin agree, on clean images and where the attack leads."""
    assert subject.model is not None
    adversarial = subject.attacked("apgd-ce:steps=100").adversarial
    shares = {}
    for name, images in (("clean", subject.split.images), ("adversarial", adversarial)):
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), subject.batch_size):
                batch = torch.from_numpy(images[start : start + subject.batch_size])
                parts.append(subject.model(batch).numpy().argmax(1))
        shares[name] = float((np.concatenate(parts) == _classes(subject, images)).mean())
    least = min(shares.values())
    verdict = graded(1 - least, suspicious=0.01, fails=0.05)
    return CheckResult(
        check="fidelity.twin",
        verdict=verdict,
        found=f"engine and twin agree on {shares['clean']:.1%} clean, {shares['adversarial']:.1%} adversarial images",
        limits="suspicious below 99 %, fails below 95 %",
        advice="" if verdict == "pass" else "the twin is not this engine: check the file, the provider, the optimiser",
    )


def _classes(subject: Examined, images: FloatNCHW) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    starts = range(0, len(images), subject.batch_size)
    parts = [subject.predict(images[start : start + subject.batch_size]).argmax(1) for start in starts]
    return np.concatenate(parts)
