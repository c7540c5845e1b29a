"""The masking audit as part of a protocol: every judged form, on a part of the images; the journal keeps checks."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rctk.data.split import Split
from rctk.evaluation.journal import Journal
from rctk.evaluation.protocol import FLOAT
from rctk.evaluation.subjects import Subject
from rctk.progress import Progress
from rctk.threat import ThreatModel

if TYPE_CHECKING:
    from rctk.audit import Audit, CheckResult
    from rctk.audit.run import Keep


def audit_forms(  # noqa: PLR0913 - what is audited, then how
    subjects: Sequence[Subject],
    split: Split,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    progress: Progress | None,
    journal: Journal | None,
) -> tuple[tuple[Audit, ...], str]:
    """Audit every judged form, the float parent first; or say why none was audited."""
    if importlib.util.find_spec("torch") is None:
        return (), "torch is not installed"
    if threat.norm == "l1":
        return (), "its attacks run in linf and l2"
    from rctk.audit import Examined, audit  # noqa: PLC0415  # torch, which a device lacks

    done: list[Audit] = []
    parent: Examined | None = None
    for subject in sorted((s for s in subjects if s.judged), key=lambda s: s.name != FLOAT):
        form = Examined(
            name=subject.name,
            predict=subject.predict,
            model=cast("Any", subject.model),  # a torch module wherever it is not None
            split=split,
            threat=threat,
            parent=parent,
            seed=seed,
            batch_size=batch_size,
        )
        parent = form if subject.name == FLOAT else parent
        done.append(audit(form, progress, _keep(journal, f"audit {subject.name} {split.fingerprint} {batch_size}")))
    return tuple(done), ""


def _keep(journal: Journal | None, key: str) -> Keep | None:
    """Return what finds finished checks in the journal."""
    if journal is None:
        return None
    from rctk.audit import CheckResult  # noqa: PLC0415

    names = [field.name for field in fields(CheckResult)]

    def keep(check: str, run: Any) -> CheckResult:
        saved, _ = journal.kept(
            f"{key} {check}", lambda: {name: np.asarray(value) for name, value in run().as_dict().items()}
        )
        return CheckResult(**cast("Any", {name: str(saved[name]) for name in names}))

    return keep
