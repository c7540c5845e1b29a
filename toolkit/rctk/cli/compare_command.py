"""``rctk compare``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.attack_extras import check_repeats, fed, settings_of
from rctk.cli.compare_words import Compared
from rctk.cli.console import Bars
from rctk.cli.flags import DataFlags, Fraction, GridFlags, InputFlags, RecordFlags, Repeated, Switch, Whole
from rctk.cli.places import check_file
from rctk.cli.protocol_runs import chosen, protocol_run
from rctk.data import read_split
from rctk.deployment import open_deployment
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.repeats import Apart, repeated
from rctk.evaluation.suite import attack_subjects
from rctk.forms import need_gradients, need_reference, open_forms
from rctk.gate_outputs import default_summary, write_outputs
from rctk.gate_together import Together, gate_attacks
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk.statistics.non_inferiority import check_margin
from rctk.statistics.planning import Spread, plan_text

NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = GridFlags()
NO_RECORD_FLAGS = RecordFlags()
DEFAULT_ATTACKS = ("apgd-ce", "apgd-t:targets=3", "square:queries=500")
"""Two gradient attacks with different losses, crafted on float and on twin, and one without gradients."""


def compare_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    max_drop: Fraction = 0.02,
    plan: Switch = False,
    attack: Annotated[tuple[str, ...], Repeated] = DEFAULT_ATTACKS,
    protocol: str | None = None,
    engine: str = "onnxruntime",
    target: str | None = None,
    parent: Annotated[Path | None, Parameter(name="--float")] = None,
    each: Switch = False,
    repeats: Whole = 1,
    batch_size: Whole = 64,
    junit: Path | None = None,
    summary: Path | None = None,
    json: Path | None = None,
    threat: GridFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> int:
    """Gate the deployed engine against its float parent, clean and under attack, on the same images.

    Every candidate made for one side is also tried on the other. Exit code 0: the drop of clean and of robust accuracy
    is below --max-drop (one-sided 95 % Tango bound). 1: it is not. 3: the images cannot decide; the output says how
    many would.

    Example: rctk compare model-int8 --data cifar10:test --eps 8/255 --max-drop 0.02 --junit gate.xml

    Args:
        path: Bundle folder, or an int8 .onnx file with --float FILE.onnx and --input.
        data: Images.
        max_drop: Largest allowed drop, a share; choose it before you look at the result.
        plan: Only say how many images this drop needs, and whether --samples are enough; nothing is run.
        attack: Attack with settings; may be repeated.
        protocol: A fixed set of attacks in tiers instead of --attack, with the masking audit, which a gate does not
            hold without: quick, standard or full; deployed is the standard one. It can be stopped, and the same command
            goes on.
        engine: Engine that runs the deployed file.
        target: Which int8 file of the bundle.
        parent: Float .onnx of a bare int8 file.
        each: Run and gate every attack by itself as well, with Holm's correction for their number; the exit code stays
            that of all attacks together.
        repeats: Attack with so many seeds, from --seed on; the worst case per image counts, the spread is told.
        batch_size: Most images in one pass.
        junit: Write JUnit XML there.
        summary: Append a Markdown summary there; $GITHUB_STEP_SUMMARY by default where it is set.
        json: Write the comparison as JSON there.
        threat: Budget.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_margin(max_drop)
    if plan:
        print("\n".join(plan_text(max_drop, data.samples)))
        return 0
    summary = summary or default_summary(os.environ)
    for file, flag in ((junit, "--junit"), (summary, "--summary"), (json, "--json")):
        check_file(file, flag)
    preset, attacks = chosen(protocol, attack)
    budget, folder, gradients = threat.model(), records.checked(), need_gradients(attacks)
    check_repeats(repeats, protocol, each=each)
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent) as deployment:
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        found, journal = None, None
        spreads: dict[str, Spread] = {}
        single: dict[str, Together] = {}
        look = FirstLook(split, batch_size, deployment.classes)
        budget = fed(budget, deployment, look, rounded=threat.rounded)
        if preset is not None:
            deployment.need_float()
            found, journal = protocol_run(
                deployment,
                split,
                preset,
                on=("float", "engine"),
                engine=engine,
                seed=data.seed,
                threat=budget,
                rounded=threat.rounded,
                batch_size=batch_size,
                folder=folder,
            )
            result = found.suite
        else:
            pairs = need_reference(attacks)
            forms = ("float", "engine")
            with open_forms(deployment, forms, engine, gradients=gradients, beside=pairs, look=look) as subjects:
                run = Apart(
                    lambda chosen, seed: attack_subjects(
                        subjects,
                        split,
                        chosen,
                        budget,
                        seed=seed,
                        batch_size=batch_size,
                        rounded=threat.rounded,
                        progress=Bars(),
                    ),
                    attacks,
                    together=not each,
                )
                result, spreads = repeated(run, data.seed, repeats)
            single = gate_attacks(run.each(), max_drop, rounded=threat.rounded) if each else {}
        result = replace(result, notes=(*look.notes, *result.notes))
    done = Compared(
        result=result,
        max_drop=max_drop,
        rounded=threat.rounded,
        look=look,
        spreads=spreads,
        single=single,
        found=found,
    )
    subject = {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "target": deployment.deployed.target,
        "engine": engine,
    }
    own = {**settings_of(budget, split, engine), **done.settings()}
    Record.of("compare", subject, own, done.values(), machine=machine_facts(), versions=versions()).append_to(folder)
    comparison, shown = done.gates(), f"{deployment.name} {deployment.deployed.target}".strip()
    try:
        write_outputs(comparison, shown, junit=junit, summary=summary, json=json)
    finally:  # a file that cannot be written hides no verdict, and a reader who left costs no file
        where = deployment.deployed.target or "bare file"
        print(f"{deployment.name} ({where}, {engine}) on {len(split)} images of {split.name}")
        done.show()
    if journal is not None:
        journal.forget()
    return comparison.exit_code
