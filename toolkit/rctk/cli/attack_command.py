"""``rctk attack``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rctk.cli.attack_extras import check_extras, check_measurable, extras, fed, measure, settings_of, show
from rctk.cli.attack_records import ATTACK_COLUMNS, WORST_COLUMNS, append_attacks, attack_rows, save, worst_rows
from rctk.cli.console import Bars, table
from rctk.cli.flags import DataFlags, GridFlags, InputFlags, RecordFlags, Repeated, Whole
from rctk.cli.places import check_file
from rctk.cli.protocol_runs import Journals, chosen, protocol_forms, protocol_run, show_protocol
from rctk.cli.words import ratio
from rctk.data import read_split
from rctk.deployment import open_deployment
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.repeats import repeated
from rctk.evaluation.suite import attack_subjects
from rctk.forms import check_forms, check_pairs, need_gradients, need_reference, open_forms

NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = GridFlags()
NO_RECORD_FLAGS = RecordFlags()


def attack_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    attack: Annotated[tuple[str, ...], Repeated] = ("apgd-ce",),
    protocol: str | None = None,
    on: Annotated[tuple[str, ...], Repeated] = ("engine",),
    engine: str = "onnxruntime",
    target: str | None = None,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    cross: bool = True,
    repeats: Whole = 1,
    metric: Annotated[tuple[str, ...], Repeated] = (),
    batch_size: Whole = 64,
    save_candidates: Path | None = None,
    threat: GridFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Attack a bundle's float model, twin or engine, or a bare engine file.

    PATH is a bundle folder, an .onnx file with --input (and --mean, --std), a TensorRT .plan with its record, or the
    address of a served model such as http://jetson:8000/model with --input; only query attacks and images made on
    other networks reach those two. Gradient attacks on an engine are
    crafted on its twin and replayed on it. With --cross every candidate is tried on every form named by --on, so that
    none is attacked less than another.

    Example: rctk attack model-int8 --on float --on engine --attack apgd-ce --attack square --data cifar10:test

    Args:
        path: Bundle folder, .onnx file, TensorRT .plan with its record, or address of a served model.
        data: Images.
        attack: Attack with settings, such as square:queries=1000; may be repeated. See `rctk list attacks`.
        protocol: A fixed set of attacks in tiers instead of --attack, with the masking audit: quick, standard or full;
            deployed is the standard one. The float parent takes part. It can be stopped, and the same command goes on.
        on: What to attack: float, twin or engine; may be repeated. With ensemble, gradient attacks are also crafted on
            the mean of all forms named.
        engine: Engine that runs the deployed file, such as onnxruntime:threads=2.
        target: Which int8 file of the bundle; by default the engine's own, else cpu.
        parent: Float .onnx of a bare int8 file.
        cross: Try every candidate on all forms.
        repeats: Run with so many seeds, from --seed on; the worst case per image counts, the spread is told.
        metric: Measure also r2, r-inf, distance:attack=fmn or clever:images=10; may be repeated. See `rctk list
            metrics`.
        batch_size: Most images in one pass.
        save_candidates: Write the strongest candidate of every image there, for `rctk replay` on a device.
        threat: Budget.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_forms(on, ensemble=True)
    preset, attacks = chosen(protocol, attack)
    check_pairs(on, attacks)
    budget, folder = threat.model(), records.checked()
    check_file(save_candidates, "--save-candidates")
    gradients = check_extras(metric, repeats) or need_gradients(attacks)
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent, engine=engine) as deployment:
        engine = deployment.engine_of(engine)
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        found: ProtocolResult | None = None
        look = FirstLook(split, batch_size, deployment.classes)
        budget = fed(budget, deployment, look, rounded=threat.rounded)
        journals = Journals(folder, deployment, split, budget, engine)
        how: dict[str, Any] = {"batch_size": batch_size, "cross": cross, "rounded": threat.rounded}
        if preset is not None:
            with protocol_forms(deployment, split, on, engine, look) as opened:
                check_measurable(metric, opened.subjects, budget)
                found, spreads = protocol_run(
                    opened, split, preset, seed=data.seed, repeats=repeats, threat=budget, journals=journals, **how
                )
                result = found.suite
                measured = measure(
                    metric, opened.subjects, split, budget, seed=data.seed, batch_size=batch_size, progress=Bars()
                )
        else:
            pairs = need_reference(attacks)
            with open_forms(deployment, on, engine, gradients=gradients, beside=pairs, look=look) as subjects:
                check_measurable(metric, subjects, budget)
                result, spreads = repeated(
                    lambda seed: attack_subjects(
                        subjects,
                        split,
                        attacks,
                        budget,
                        seed=seed,
                        progress=Bars(),
                        journal=journals.attacks(seed),
                        **how,
                    ),
                    data.seed,
                    repeats,
                )
                measured = measure(
                    metric, subjects, split, budget, seed=data.seed, batch_size=batch_size, progress=Bars()
                )
        result = replace(result, notes=(*look.notes, *result.notes))
        extra = extras(result, split, look, spreads, measured)
        settings = {**settings_of(budget, split, engine), **result.settings}
        append_attacks(result, deployment, settings, folder, found, extra)
        save(save_candidates, result, split, budget, deployment, settings)
    title = f"{deployment.name} on {len(split)} images of {split.name}, {budget.norm} eps {ratio(budget.eps)}"
    table(title, ATTACK_COLUMNS, attack_rows(result))
    print()
    table("accuracy under all of them, worst case per image", WORST_COLUMNS, worst_rows(result))
    show(extra, spreads, measured)
    if found is not None:
        show_protocol(found)
    journals.forget()
    for note in result.notes:
        print(f"note: {note}")
