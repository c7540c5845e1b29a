"""Rows and records of a suite of attacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rctk.cli.console import share
from rctk.data.split import Split
from rctk.deployment import Deployment
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.subjects import EIGHT_BIT
from rctk.evaluation.suite import SuiteResult
from rctk.machine import machine_facts, versions
from rctk.records import Record, now, plain
from rctk.replay import Candidates, write_candidates
from rctk.statistics import wilson
from rctk.threat import ThreatModel

ATTACK_COLUMNS = ("attacked", "attack", "crafted on", "broken", "queries", "passes fwd/bwd", "s")
WORST_COLUMNS = ("attacked", "clean", "robust (95 %)", "queries", "passes fwd/bwd", "s")


def attack_rows(result: SuiteResult) -> list[tuple[str, ...]]:
    """Return what each attack broke on each subject."""
    rows: list[tuple[str, ...]] = []
    for name in result.clean:
        for entry in result.entries:
            if name in entry.robust:
                tried = entry.tried & result.clean[name]
                broken = f"{int((tried & ~entry.robust[name]).sum())}/{int(tried.sum())}"
                cost = f"{entry.forward_passes}/{entry.backward_passes}"
                row = (name, entry.attack, f"{entry.crafted_on} ({entry.tier(name)})", broken)
                rows.append((*row, str(entry.queries), cost, f"{entry.seconds:.1f}"))
    return rows


def worst_rows(result: SuiteResult) -> list[tuple[str, ...]]:
    """Return clean accuracy and the worst case over all attacks of each subject."""
    cost = (f"{result.forward_passes}/{result.backward_passes}", f"{result.seconds:.1f}")
    return [
        (
            name,
            share(result.clean_accuracy(name)),
            _interval(int(result.robust[name].sum()), result.samples),
            str(int(result.queries[name].sum())),
            *cost,
        )
        for name in result.clean
    ]


def _interval(count: int, samples: int) -> str:
    low, high = wilson(count, samples)
    return f"{share(count / samples)} ({share(low)} to {share(high)})"


def append_attacks(
    result: SuiteResult,
    deployment: Deployment,
    settings: Mapping[str, Any],
    folder: Path,
    protocol: ProtocolResult | None = None,
    extra: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Append one record for each subject: its robust accuracy under all attacks, under each, and tier by tier.

    ``extra`` holds further values by subject.
    """
    facts, software = machine_facts(), versions()
    for name in result.clean:
        values, form = _values(result, name), name.removesuffix(EIGHT_BIT)
        values |= extra.get(name, {})
        values |= {} if protocol is None else {"protocol": protocol.as_dict(name)}
        subject = {
            "name": deployment.name,
            "sha256": deployment.sha256,
            "role": "float" if form == "float" else "int8",
            "target": "" if form == "float" else deployment.deployed.target,
            "engine": settings["engine"] if form == "engine" else form,
        }
        attacks = " + ".join(settings["attacks"])
        preset = {} if protocol is None else {"protocol": protocol.protocol.name}
        own = {**settings, **preset, "attack": attacks, "crafted_on": "all"} | (
            {"grid": "uint8"} if form != name else {}
        )
        Record.of("attack", subject, own, values, machine=facts, versions=software).append_to(folder)


def save(
    path: Path | None,
    result: SuiteResult,
    split: Split,
    threat: ThreatModel,
    deployment: Deployment,
    settings: Mapping[str, Any],
) -> None:
    """Write the candidates of a suite for `rctk replay`; None leaves it."""
    if path is None:
        return
    subject = {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "file_sha256": deployment.deployed.sha256,
        "target": deployment.deployed.target,
    }
    made = {key: settings[key] for key in ("attacks", "seed", "engine")}
    facts = plain({"subject": subject, **made, "versions": versions(), "time": now()}, "candidates")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_candidates(path, Candidates.of(result, split, threat, deployment.input, facts))
    print(f"wrote {path}")


def _values(result: SuiteResult, name: str) -> dict[str, Any]:
    n, clean, robust = result.samples, int(result.clean[name].sum()), int(result.robust[name].sum())
    clean_interval, robust_interval = wilson(clean, n), wilson(robust, n)
    return {
        "samples": n,
        "clean_accuracy": clean / n,
        "clean_low": clean_interval[0],
        "clean_high": clean_interval[1],
        "robust_accuracy": robust / n,
        "robust_low": robust_interval[0],
        "robust_high": robust_interval[1],
        "queries": int(result.queries[name].sum()),
        "forward_passes": result.forward_passes,
        "backward_passes": result.backward_passes,
        "seconds": result.seconds,
        "per_attack": [
            {
                "attack": entry.attack,
                "crafted_on": entry.crafted_on,
                "tier": entry.tier(name),
                "robust": int(entry.robust[name].sum()),
                "tried": int(entry.tried.sum()),
                "zero_gradient_share": entry.zero_gradient_share,
            }
            for entry in result.entries
            if name in entry.robust
        ],
        "notes": list(result.notes),
    }
