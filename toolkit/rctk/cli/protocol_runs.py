"""What ``rctk attack`` and ``rctk compare`` share where ``--protocol`` chooses the attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rctk.cli.console import table
from rctk.data import Split
from rctk.deployment import Deployment
from rctk.evaluation.journal import Journal
from rctk.evaluation.protocol import PROTOCOLS, TIERS, Protocol, broken_by, not_run, tier_counts
from rctk.evaluation.suite import SuiteResult
from rctk.machine import versions
from rctk.threat import ThreatModel

Preset = Literal["quick", "standard", "full"]


def chosen(protocol: Preset | None, attacks: Sequence[str]) -> tuple[Protocol | None, Sequence[str]]:
    """Return the preset, if one was asked for, and the attacks to run."""
    if protocol is None:
        return None, attacks
    return PROTOCOLS[protocol], PROTOCOLS[protocol].attacks


def journal_of(folder: Path, deployment: Deployment, split: Split, threat: ThreatModel, seed: int) -> Journal:
    """Return the journal of exactly this run; the same command finds its finished batches again."""
    parent = None if deployment.float is None else deployment.float.sha256
    facts = {
        "float": parent,
        "deployed": deployment.deployed.sha256,
        "images": split.fingerprint,
        "threat": repr(threat),
        "seed": seed,
        "versions": versions(),
    }
    return Journal(folder / "unfinished", facts)


def tier_table(result: SuiteResult, protocol: Protocol) -> dict[str, dict[str, int]]:
    """Print which tier broke how many images of each subject; return the counts."""
    counts = {name: tier_counts(broken_by(result, protocol, name)) for name in result.clean}
    columns = ("outcome", *counts)
    rows = [(outcome, *(str(counts[name][outcome]) for name in counts)) for outcome in next(iter(counts.values()))]
    table(f"protocol {protocol.name}: the tier that broke an image first", columns, rows)
    for tier in not_run(result, protocol):
        print(f"note: tier {tier} did not run: {TIERS[tier]}")  # type: ignore[index]  # one of the tiers
    return counts
