"""``rctk attack``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.attack_records import append_attacks, attack_rows
from rctk.cli.console import Bars, table
from rctk.cli.flags import DataFlags, InputFlags, RecordFlags, Repeated, ThreatFlags
from rctk.data import read_split
from rctk.deployment import open_deployment
from rctk.evaluation.suite import attack_subjects
from rctk.forms import check_forms, open_forms

NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = ThreatFlags()
NO_RECORD_FLAGS = RecordFlags()


def attack_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    *,
    data: DataFlags,
    attack: Annotated[tuple[str, ...], Repeated] = ("apgd-ce",),
    on: Annotated[tuple[str, ...], Repeated] = ("engine",),
    engine: str = "onnxruntime",
    target: str | None = None,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    cross: bool = True,
    batch_size: int = 64,
    threat: ThreatFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Attack a bundle's float model, twin or engine, or a bare engine file.

    Gradient attacks on an engine are crafted on its twin and replayed on it. With --cross every candidate is tried on
    every form named by --on, so that none is attacked less than another.

    Args:
        path: Bundle folder, or an .onnx file with --input (and --mean, --std).
        data: Images.
        attack: Attack with settings, such as apgd-ce or square:queries=1000; may be repeated. See `rctk list attacks`.
        on: What to attack: float, twin or engine; may be repeated.
        engine: Engine that runs the deployed file, such as onnxruntime:threads=2.
        target: Which int8 file of the bundle.
        parent: Float .onnx of a bare int8 file.
        cross: Try every candidate on all forms.
        batch_size: Most images in one pass.
        threat: Budget.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_forms(on)
    budget = threat.model()
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent) as deployment:
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        with open_forms(deployment, on, engine) as subjects:
            result = attack_subjects(
                subjects,
                split,
                attack,
                budget,
                seed=data.seed,
                batch_size=batch_size,
                cross=cross,
                progress=Bars(),
            )
        settings = {**asdict(budget), "data": split.name, "fingerprint": split.fingerprint, "engine": engine}
        append_attacks(result, deployment, {**settings, **result.settings}, records.out)
    columns = (
        "attacked",
        "attack",
        "crafted on",
        "broken of tried",
        "accuracy (95 %)",
        "queries",
        "passes fwd/bwd",
        "s",
    )
    table(f"{deployment.name} on {len(split)} images of {split.name}, {budget}", columns, attack_rows(result))
    for note in result.notes:
        print(f"note: {note}")
