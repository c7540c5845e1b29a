"""Runs the deployed protocol: attacks in tiers, the differential searches, the masking audit."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from rctk.attacks import ATTACKS
from rctk.attacks.attack import norms
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.differential import SEARCHES, DifferentialResult, differential
from rctk.evaluation.journal import Journal
from rctk.evaluation.judge import Flags
from rctk.evaluation.protocol import FLOAT, LEAST_CORRECT, TIERS, Protocol, Tier, tier_of
from rctk.evaluation.protocol_audit import audit_forms
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.rounds import Made, evidence_of
from rctk.evaluation.subjects import Subject
from rctk.evaluation.suite import SuiteResult, attack_subjects
from rctk.progress import Progress
from rctk.threat import ThreatModel
from rctk_kernels.errors import DataError


def run_protocol(  # noqa: PLR0913 - who, on what, by which budget, then how
    subjects: Sequence[Subject],
    split: Split,
    protocol: Protocol,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    cross: bool = True,
    rounded: bool = False,
    reasons: Mapping[Tier, str] | None = None,
    audited: bool = True,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> ProtocolResult:
    """Attack forms of one model tier by tier, drive them apart, and audit what was found.

    The differential searches take all images that float model and engine get right, because their rates are about
    those; what fooled a form is judged last, as one more tier. What cannot run is named with its reason.

    Args:
        subjects: Forms of one model; the one called ``float`` is the parent of the others.
        split: Images and labels.
        protocol: The preset.
        threat: The budget.
        seed: Same seed, batch size and machine: same result, bit for bit.
        batch_size: Most images in one pass.
        cross: See :func:`rctk.evaluation.suite.attack_subjects`.
        rounded: See there.
        reasons: Why a tier will not run, where the caller knows.
        audited: Run the masking audit; a run that repeats another with a further seed needs none of its own.
        progress: Told about every batch of images.
        journal: Keeps finished batches and checks; a run that was stopped goes on and ends with the same result.

    Raises:
        DataError: A subject gets fewer than 20 images right.
    """
    subjects = sorted(subjects, key=lambda subject: subject.name != FLOAT)
    right = {subject.name: _right(subject, split, batch_size) for subject in subjects if subject.judged}
    attacks = _possible(subjects, protocol, threat)
    apart: list[DifferentialResult] = []
    pair = _pair(subjects)

    def last() -> list[Made]:
        searches = _searches(pair, protocol, threat) if pair is not None else ()
        if pair is None or not searches or not (right[pair[0].name] & right[pair[1].name]).any():
            return []
        apart.append(
            differential(
                *pair,
                split,
                threat,
                searches=searches,
                seed=seed,
                batch_size=batch_size,
                progress=progress,
                journal=journal,
            )
        )
        return _made(apart[0])

    suite = attack_subjects(
        subjects,
        split,
        attacks,
        threat,
        seed=seed,
        batch_size=batch_size,
        cross=cross,
        rounded=rounded,
        ordered=True,
        last=last,
        progress=progress,
        journal=journal,
    )
    audits, not_audited = audit_forms(
        subjects if audited else (),
        split.sample(protocol.audit_samples, seed),
        threat,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        journal=journal,
    )
    return ProtocolResult(
        protocol=protocol,
        suite=suite,
        differential=apart[0] if apart else None,
        audits=audits,
        not_run=_not_run(suite, subjects, threat, reasons or {}),
        not_audited=not_audited if audited else "it was not asked for",
    )


def _right(subject: Subject, split: Split, batch_size: int) -> Flags:
    """Say which images a subject gets right, ``(N,)``; :class:`DataError` where they are too few."""
    right = clean_classes(Counted(subject.predict, len(split), batch_size), split) == split.labels
    if right.sum() < LEAST_CORRECT:
        raise DataError(
            f"{split.name}: {subject.name} gets {int(right.sum())} of {len(split)} images right, a protocol needs "
            f"{LEAST_CORRECT} or more; take more --samples, or check labels and normalisation with `rctk inspect`"
        )
    return np.asarray(right)


def _pair(subjects: Sequence[Subject]) -> tuple[Subject, Subject] | None:
    """Return the float model and the deployed form, where both are judged."""
    judged = [subject for subject in subjects if subject.judged]
    parents = [subject for subject in judged if subject.name == FLOAT]
    others = [subject for subject in judged if subject.name != FLOAT]
    return (parents[0], others[-1]) if parents and others else None


def _possible(subjects: Sequence[Subject], protocol: Protocol, threat: ThreatModel) -> tuple[str, ...]:
    """Return the attacks that can run: in this norm, with what is installed, on the models that are there."""
    blind = all(subject.model is None for subject in subjects)
    missing = {"gradient"} if blind else set()
    missing |= set() if _has_torch() else {"substitute", "gradient"}
    return tuple(a for a in protocol.attacks_in(threat.norm) if evidence_of(ATTACKS.build(a)) not in missing)


def _searches(pair: tuple[Subject, Subject], protocol: Protocol, threat: ThreatModel) -> tuple[str, ...]:
    methods = {text: SEARCHES.build(text) for text in protocol.differential}
    blind = any(subject.model is None for subject in pair)
    return tuple(
        text
        for text, method in methods.items()
        if threat.norm in norms(method) and not (blind and method.kind == "gradient")
    )


def _made(result: DifferentialResult) -> list[Made]:
    """Return what fooled a form, direction by direction."""
    return [
        Made(
            attack=" + ".join(direction.searches),
            subject=direction.fooled,
            evidence="differential",
            rows=result.rows,
            images=direction.fooling,
            queries=direction.queries,
            forward_passes=direction.cost.forward,
            backward_passes=direction.cost.backward,
            seconds=direction.seconds,
        )
        for direction in result.directions
    ]


def _not_run(
    suite: SuiteResult, subjects: Sequence[Subject], threat: ThreatModel, reasons: Mapping[Tier, str]
) -> dict[Tier, str]:
    """Name the tiers that no entry belongs to, and why."""
    names = {subject.name for subject in subjects}
    parent = "no float parent" if FLOAT not in names else "the float parent has no gradients here"
    unpaired = parent if FLOAT not in names else "nothing deployed beside the float model"
    no_norm = f"no attack of this tier in {threat.norm}"
    why: dict[Tier, str] = {
        "transfer-float": parent,
        "transfer-twin": "no twin of the deployed file",
        "substitute": no_norm if _has_torch() else "torch is not installed",
        "score": no_norm,
        "decision": no_norm,
        "differential": unpaired if _pair(subjects) is None else f"no image that both get right, or {no_norm}",
    }
    ran = {tier_of(entry) for entry in suite.entries}
    return {tier: reasons.get(tier, why[tier]) for tier in TIERS if tier not in ran}


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None
