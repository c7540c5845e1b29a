"""``rctk attack``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.attack_records import ATTACK_COLUMNS, WORST_COLUMNS, append_attacks, attack_rows, worst_rows
from rctk.cli.console import Bars, table
from rctk.cli.flags import DataFlags, GridFlags, InputFlags, RecordFlags, Repeated, Whole
from rctk.cli.protocol_runs import Preset, chosen, journal_of, tier_table
from rctk.cli.words import ratio
from rctk.data import read_split
from rctk.deployment import open_deployment
from rctk.evaluation.suite import attack_subjects
from rctk.forms import check_forms, need_gradients, need_reference, open_forms

NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = GridFlags()
NO_RECORD_FLAGS = RecordFlags()


def attack_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    attack: Annotated[tuple[str, ...], Repeated] = ("apgd-ce",),
    protocol: Preset | None = None,
    on: Annotated[tuple[str, ...], Repeated] = ("engine",),
    engine: str = "onnxruntime",
    target: str | None = None,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    cross: bool = True,
    batch_size: Whole = 64,
    threat: GridFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Attack a bundle's float model, twin or engine, or a bare engine file.

    PATH is a bundle folder, or an .onnx file with --input (and --mean, --std). Gradient attacks on an engine are
    crafted on its twin and replayed on it. With --cross every candidate is tried on every form named by --on, so that
    none is attacked less than another.

    Example: rctk attack model-int8 --on float --on engine --attack apgd-ce --attack square --data cifar10:test

    Args:
        path: Bundle folder or .onnx file.
        data: Images.
        attack: Attack with settings, such as square:queries=1000; may be repeated. See `rctk list attacks`.
        protocol: A fixed set of attacks in tiers instead of --attack: quick, standard or full. It can be stopped, and
            the same command goes on.
        on: What to attack: float, twin or engine; may be repeated. With ensemble, gradient attacks are also crafted on
            the mean of all forms named.
        engine: Engine that runs the deployed file, such as onnxruntime:threads=2.
        target: Which int8 file of the bundle.
        parent: Float .onnx of a bare int8 file.
        cross: Try every candidate on all forms.
        batch_size: Most images in one pass.
        threat: Budget.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_forms(on, ensemble=True)
    preset, attacks = chosen(protocol, attack)
    budget, folder, gradients = threat.model(), records.checked(), need_gradients(attacks)
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent) as deployment:
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        journal = journal_of(folder, deployment, split, budget, data.seed) if preset is not None else None
        pairs = need_reference(attacks)
        with open_forms(deployment, on, engine, gradients=gradients, beside=pairs) as subjects:
            result = attack_subjects(
                subjects,
                split,
                attacks,
                budget,
                seed=data.seed,
                batch_size=batch_size,
                cross=cross,
                rounded=threat.rounded,
                progress=Bars(),
                journal=journal,
            )
        settings = {**asdict(budget), "data": split.name, "fingerprint": split.fingerprint, "engine": engine}
        append_attacks(result, deployment, {**settings, **result.settings}, folder)
    title = f"{deployment.name} on {len(split)} images of {split.name}, {budget.norm} eps {ratio(budget.eps)}"
    table(title, ATTACK_COLUMNS, attack_rows(result))
    print()
    table("accuracy under all of them, worst case per image", WORST_COLUMNS, worst_rows(result))
    if preset is not None and journal is not None:
        tier_table(result, preset)
        journal.forget()
    for note in result.notes:
        print(f"note: {note}")
