"""What ``rctk attack`` and ``rctk compare`` share where ``--protocol`` chooses the attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rctk.cli.console import Bars, share, table
from rctk.data import Split
from rctk.deployment import REMOTE, Deployment
from rctk.evaluation.journal import Journal
from rctk.evaluation.protocol import FLOAT, LEAST_CORRECT, TIERS, Protocol, Tier, protocol_named
from rctk.evaluation.protocol_repeats import repeated_protocol
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.protocol_run import run_protocol
from rctk.evaluation.subjects import Subject
from rctk.forms import open_forms
from rctk.machine import versions
from rctk.statistics.planning import Spread
from rctk.threat import ThreatModel
from rctk_kernels.errors import DataError, GraphError


def chosen(protocol: str | None, attacks: Sequence[str]) -> tuple[Protocol | None, Sequence[str]]:
    """Return the preset, if one was asked for, and the attacks to run."""
    if protocol is None:
        return None, attacks
    preset = protocol_named(protocol)
    return preset, preset.attacks


def journal_of(
    folder: Path, deployment: Deployment, split: Split, threat: ThreatModel, seed: int, engine: str
) -> Journal:
    """Return the journal of exactly this run; the same command finds its finished batches again."""
    parent = None if deployment.float is None else deployment.float.sha256
    facts = {
        "float": parent,
        "deployed": deployment.deployed.sha256,
        "evaluation": None if deployment.evaluation is None else deployment.evaluation.sha256,
        "engine": engine,
        "images": split.fingerprint,
        "threat": repr(threat),
        "seed": seed,
        "versions": versions(),
    }
    return Journal(folder / "unfinished", facts)


class Journals:
    """The journals of one command, one per seed, to be forgotten when its result is on disk."""

    def __init__(self, folder: Path, deployment: Deployment, split: Split, threat: ThreatModel, engine: str) -> None:
        self._run = (folder, deployment, split, threat, engine)
        self._kept: list[Journal] = []

    def protocol(self, seed: int) -> Journal:
        """Return the journal of a protocol with this seed."""
        folder, deployment, split, threat, engine = self._run
        self._kept.append(journal_of(folder, deployment, split, threat, seed, engine))
        return self._kept[-1]

    def attacks(self, seed: int) -> Journal | None:
        """Return the journal of single attacks; None where no server or network can die in mid-attack."""
        return self.protocol(seed) if self._run[-1].partition(":")[0] == REMOTE else None

    def forget(self) -> None:
        """Remove all of them."""
        for journal in self._kept:
            journal.forget()


class Opened(NamedTuple):
    """What a protocol runs on.

    Attributes:
        subjects: The forms named, and the float parent.
        reasons: Tiers that will not run, and why.
    """

    subjects: list[Subject]
    reasons: dict[Tier, str]


@contextmanager
def protocol_forms(
    deployment: Deployment, split: Split, on: Sequence[str], engine: str, look: Callable[[Subject], Subject] | None
) -> Iterator[Opened]:
    """Open the forms, the float parent among them; a graph that cannot be differentiated goes without its twin."""
    if len(split) < LEAST_CORRECT:
        raise DataError(
            f"{split.name}: a protocol needs {LEAST_CORRECT} correctly classified images or more, got {len(split)} "
            "images; take more --samples"
        )
    parent = () if deployment.float is None else (FLOAT,)
    forms = list(dict.fromkeys((*parent, *on)))
    with ExitStack() as stack:
        why = deployment.no_twin
        reasons: dict[Tier, str] = {"transfer-twin": f"no twin of the deployed file, {why}"} if why else {}
        try:
            subjects = stack.enter_context(open_forms(deployment, forms, engine, look=look))
        except GraphError as error:
            subjects = stack.enter_context(open_forms(deployment, forms, engine, gradients=False, look=look))
            reasons["transfer-twin"] = f"no twin, {error}"
        yield Opened(subjects, reasons)


def protocol_run(  # noqa: PLR0913  # what the flags say
    opened: Opened,
    split: Split,
    preset: Protocol,
    *,
    seed: int,
    repeats: int,
    threat: ThreatModel,
    rounded: bool,
    batch_size: int,
    journals: Journals,
    cross: bool = True,
) -> tuple[ProtocolResult, dict[str, Spread]]:
    """Run a protocol with one seed or several; return its result and the spread between seeds."""
    return repeated_protocol(
        lambda at, audited: run_protocol(
            opened.subjects,
            split,
            preset,
            threat,
            seed=at,
            batch_size=batch_size,
            cross=cross,
            rounded=rounded,
            reasons=opened.reasons,
            audited=audited,
            progress=Bars(),
            journal=journals.protocol(at),
        ),
        seed,
        repeats,
    )


def show_protocol(found: ProtocolResult) -> None:
    """Print what every tier broke, how far the forms were driven apart, the audit, and the verdicts."""
    names = list(found.suite.clean)
    rows = []
    for index, tier in enumerate(TIERS):
        cells = []
        for name in names:
            row = found.tiers(name)[index]
            left = f"{share(row.left.value)} ({share(row.left.low)} to {share(row.left.high)})"
            cells += [str(row.broken), left] if row.ran else ["not run", ""]
        rows.append((tier, *cells))
    columns = ("tier", *(text for name in names for text in (f"{name}: broke first", "robust after it (95 %)")))
    print()
    table(f"protocol {found.protocol.name}, tier by tier", columns, rows)
    _show_differential(found)
    _show_audits(found)
    for missing, why in found.not_run.items():
        print(f"note: tier {missing} did not run: {why}")
    if found.not_audited:
        print(f"note: no masking audit: {found.not_audited}")
    for name in names:
        print(found.verdict(name))


def _show_differential(found: ProtocolResult) -> None:
    if found.differential is None:
        return
    rows = []
    for direction in found.differential.directions:
        for text, search in (*direction.searches.items(), ("all of them", direction.union)):
            evasion = share(search.evasion.value)
            shares = (share(search.success.value), share(search.evasive_share.value), evasion)
            rows.append((f"{direction.fooled} wrong, {direction.unaware} right", text, *shares))
    common = len(found.differential.rows)
    columns = ("looked for", "search", "fooled", "fooled unseen", "unseen of fooled")
    print()
    table(f"differential, {common} images that both get right", columns, rows)


def _show_audits(found: ProtocolResult) -> None:
    for audit in found.audits:
        doubts = [result for result in audit.results if result.verdict in {"fails", "suspicious"}]
        print(f"\nmasking audit of {audit.name}: {audit.verdict} ({len(audit.results)} checks, {audit.samples} images)")
        for result in doubts:
            print(f"  {result.check} {result.verdict}: {result.found} ({result.limits}); {result.advice}")
