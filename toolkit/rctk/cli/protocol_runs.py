"""What ``rctk attack`` and ``rctk compare`` share where ``--protocol`` chooses the attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rctk.cli.console import Bars, share, table
from rctk.data import Split
from rctk.deployment import REMOTE, Deployment
from rctk.evaluation.journal import Journal
from rctk.evaluation.protocol import FLOAT, LEAST_CORRECT, TIERS, Protocol, Tier, protocol_named
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.protocol_run import run_protocol
from rctk.evaluation.subjects import Subject
from rctk.forms import open_forms
from rctk.machine import versions
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
    """The journals of one command, to be forgotten when its result is on disk.

    A protocol has one. Attacks on a server have one per seed, because servers and networks die in mid-attack.
    """

    def __init__(self, folder: Path, deployment: Deployment, split: Split, threat: ThreatModel, engine: str) -> None:
        self._run = (folder, deployment, split, threat, engine)
        self._kept: list[Journal] = []

    def append(self, journal: Journal) -> None:
        """Remember a journal."""
        self._kept.append(journal)

    def of(self, seed: int) -> Journal | None:
        """Return the journal of the attacks with this seed; None where the engine runs in this process."""
        folder, deployment, split, threat, engine = self._run
        if engine.partition(":")[0] != REMOTE:
            return None
        self.append(journal_of(folder, deployment, split, threat, seed, engine))
        return self._kept[-1]

    def forget(self) -> None:
        """Remove all of them."""
        for journal in self._kept:
            journal.forget()


def protocol_run(  # noqa: PLR0913  # what the flags say
    deployment: Deployment,
    split: Split,
    preset: Protocol,
    *,
    on: Sequence[str],
    engine: str,
    seed: int,
    threat: ThreatModel,
    rounded: bool,
    batch_size: int,
    folder: Path,
    cross: bool = True,
    look: Callable[[Subject], Subject] | None = None,
) -> tuple[ProtocolResult, Journal]:
    """Run a protocol on the forms named and on the float parent, which it needs; return its journal to forget."""
    if len(split) < LEAST_CORRECT:
        raise DataError(
            f"{split.name}: a protocol needs {LEAST_CORRECT} correctly classified images or more, got {len(split)} "
            "images; take more --samples"
        )
    journal = journal_of(folder, deployment, split, threat, seed, engine)
    with _forms(deployment, on, engine, look) as (subjects, reasons):
        found = run_protocol(
            subjects,
            split,
            preset,
            threat,
            seed=seed,
            batch_size=batch_size,
            cross=cross,
            rounded=rounded,
            reasons=reasons,
            progress=Bars(),
            journal=journal,
        )
    return found, journal


@contextmanager
def _forms(
    deployment: Deployment, on: Sequence[str], engine: str, look: Callable[[Subject], Subject] | None
) -> Iterator[tuple[list[Subject], dict[Tier, str]]]:
    """Open the forms, the float parent among them; a graph that cannot be differentiated goes without its twin."""
    parent = () if deployment.float is None else (FLOAT,)
    forms = list(dict.fromkeys((*parent, *on)))
    with ExitStack() as stack:
        try:
            subjects, reasons = stack.enter_context(open_forms(deployment, forms, engine, look=look)), {}
        except GraphError as error:
            subjects = stack.enter_context(open_forms(deployment, forms, engine, gradients=False, look=look))
            reasons = {"transfer-twin": f"no twin, {error}"}
        yield subjects, reasons  # type: ignore[misc]  # the keys are tiers


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
