"""One comparison from files to a result; `rctk compare` makes one for every bundle it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rctk.cli.attack_extras import fed, settings_of
from rctk.cli.compare_words import Compared
from rctk.cli.console import Bars
from rctk.cli.flags import DataFlags, GridFlags, InputFlags
from rctk.cli.protocol_runs import Journals, protocol_forms, protocol_run
from rctk.data import Split, read_split
from rctk.deployment import Deployment, open_deployment
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.protocol import Protocol
from rctk.evaluation.repeats import Apart, repeated
from rctk.evaluation.suite import attack_subjects
from rctk.forms import need_gradients, need_reference, open_forms
from rctk.gate_several import OneOfSeveral
from rctk.gate_together import BundleGate, gate_attacks
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the flags of `rctk compare` ask for; see there."""

    data: DataFlags
    max_drop: float
    attacks: tuple[str, ...]
    preset: Protocol | None
    engine: str
    target: str | None
    parent: Path | None
    each: bool
    repeats: int
    batch_size: int
    threat: GridFlags
    flags: InputFlags
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One comparison that was run.

    Attributes:
        deployment: What was compared; its temporary files are gone.
        split: Images.
        budget: Of the attacks.
        done: The result.
        journals: Of a protocol; to be forgotten when the result is on disk.
        engine: That ran the deployed file.
    """

    deployment: Deployment
    split: Split
    budget: ThreatModel
    done: Compared
    journals: Journals
    engine: str

    @property
    def name(self) -> str:
        """Name and target, for files."""
        return f"{self.deployment.name} {self.deployment.deployed.target}".strip()

    def record(self, asked: Asked, extra: dict[str, Any]) -> None:
        """Append the record, with ``extra`` values."""
        subject = {
            "name": self.deployment.name,
            "sha256": self.deployment.sha256,
            "target": self.deployment.deployed.target,
            "engine": self.engine,
        }
        own = {**settings_of(self.budget, self.split, self.engine), **self.done.settings()}
        values = {**self.done.values(), **extra}
        made = Record.of("compare", subject, own, values, machine=machine_facts(), versions=versions())
        made.append_to(asked.folder)

    def show(self) -> None:
        """Print everything."""
        bare = "served" if self.deployment.served else "bare plan" if self.deployment.plan else "bare file"
        where = self.deployment.deployed.target or bare
        print(f"{self.deployment.name} ({where}, {self.engine}) on {len(self.split)} images of {self.split.name}")
        self.done.show()


def different(paths: Sequence[Path]) -> Sequence[Path]:
    """Refuse one bundle given twice: it would count as two of those that the correction is for."""
    seen: dict[Path, Path] = {}
    for path in paths:
        before = seen.setdefault(path.resolve(), path)
        if before is not path:
            raise OptionError(f"--also {path} is the bundle that {before} names already; give every bundle once")
    return paths


def several_of(
    paths: Sequence[Path], finished: Sequence[Finished], chances: Mapping[str, BundleGate]
) -> dict[str, OneOfSeveral]:
    """Return what files about several bundles hold."""
    return {
        str(path): OneOfSeveral(one.name, one.done.gates(), chances[str(path)])
        for path, one in zip(paths, finished, strict=True)
    }


def compare_one(path: Path, asked: Asked) -> Finished:
    """Attack float and engine of one bundle or bare file."""
    data, parent = asked.data, asked.parent
    with open_deployment(
        path, target=asked.target, spec=asked.flags.spec(), parent=parent, engine=asked.engine
    ) as deployment:
        asked = replace(asked, engine=deployment.engine_of(asked.engine))
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        look = FirstLook(split, asked.batch_size, deployment.classes)
        budget = fed(asked.threat.model(), deployment, look, rounded=asked.threat.rounded)
        journals = Journals(asked.folder, deployment, split, budget, asked.engine)
        if asked.preset is None:
            done = _attacked(deployment, split, budget, look, asked)
        else:
            done = _protocol(deployment, split, budget, look, asked, journals)
    notes = (*look.notes, *done.result.notes)
    done = replace(done, result=replace(done.result, notes=notes))
    return Finished(
        deployment=deployment, split=split, budget=budget, done=done, journals=journals, engine=asked.engine
    )


def _protocol(
    deployment: Deployment, split: Split, budget: ThreatModel, look: FirstLook, asked: Asked, journals: Journals
) -> Compared:
    assert asked.preset is not None
    deployment.need_float()
    with protocol_forms(deployment, split, ("float", "engine"), asked.engine, look) as opened:
        found, spreads = protocol_run(
            opened,
            split,
            asked.preset,
            seed=asked.data.seed,
            repeats=asked.repeats,
            threat=budget,
            rounded=asked.threat.rounded,
            batch_size=asked.batch_size,
            journals=journals,
        )
    return Compared(
        result=found.suite,
        max_drop=asked.max_drop,
        rounded=asked.threat.rounded,
        look=look,
        spreads=spreads,
        single={},
        found=found,
    )


def _attacked(deployment: Deployment, split: Split, budget: ThreatModel, look: FirstLook, asked: Asked) -> Compared:
    gradients, pairs = need_gradients(asked.attacks), need_reference(asked.attacks)
    forms = ("float", "engine")
    with open_forms(deployment, forms, asked.engine, gradients=gradients, beside=pairs, look=look) as subjects:
        run = Apart(
            lambda chosen, seed: attack_subjects(
                subjects,
                split,
                chosen,
                budget,
                seed=seed,
                batch_size=asked.batch_size,
                rounded=asked.threat.rounded,
                progress=Bars(),
            ),
            asked.attacks,
            together=not asked.each,
        )
        result, spreads = repeated(run, asked.data.seed, asked.repeats)
    single = gate_attacks(run.each(), asked.max_drop, rounded=asked.threat.rounded) if asked.each else {}
    return Compared(
        result=result,
        max_drop=asked.max_drop,
        rounded=asked.threat.rounded,
        look=look,
        spreads=spreads,
        single=single,
        found=None,
    )
