"""``rctk compare``."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.attack_records import WORST_COLUMNS, worst_rows
from rctk.cli.console import Bars, table
from rctk.cli.flags import DataFlags, Fraction, GridFlags, InputFlags, RecordFlags, Repeated, Switch, Whole
from rctk.cli.places import check_file
from rctk.cli.protocol_runs import chosen, protocol_run, show_protocol
from rctk.data import read_split
from rctk.deployment import open_deployment
from rctk.evaluation.subjects import eight_bit
from rctk.evaluation.suite import SuiteResult, attack_subjects
from rctk.forms import need_gradients, need_reference, open_forms
from rctk.gate import Comparison, compare_paired
from rctk.gate_outputs import default_summary, write_outputs
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk.statistics.non_inferiority import check_margin
from rctk.statistics.planning import plan_text

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
    with open_deployment(path, target=target, spec=flags.spec(), parent=parent) as deployment:
        split = read_split(
            data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download
        )
        found, journal = None, None
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
            with open_forms(deployment, ("float", "engine"), engine, gradients=gradients, beside=pairs) as subjects:
                result = attack_subjects(
                    subjects,
                    split,
                    attacks,
                    budget,
                    seed=data.seed,
                    batch_size=batch_size,
                    rounded=threat.rounded,
                    progress=Bars(),
                )
    disbelief = "" if found is None else found.disbelief()
    comparison = replace(_gates(result, max_drop, rounded=threat.rounded), disbelief=disbelief)
    subject = {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "target": deployment.deployed.target,
        "engine": engine,
    }
    settings = {**asdict(budget), **result.settings, "data": split.name, "fingerprint": split.fingerprint}
    own = {**settings, "samples": len(split), "max_drop": max_drop}
    values = comparison.as_dict()
    if found is not None:
        own["protocol"] = found.protocol.name
        values["protocol"] = {name: found.as_dict(name) for name in result.clean}
    if threat.rounded:
        own["grid"] = "uint8"
        values["float_valued"] = _gates(result, max_drop, rounded=False).as_dict()
    Record.of("compare", subject, own, values, machine=machine_facts(), versions=versions()).append_to(folder)
    write_outputs(
        comparison,
        f"{deployment.name} {deployment.deployed.target}".strip(),
        junit=junit,
        summary=summary,
        json=json,
    )
    shown = deployment.deployed.target or "bare file"
    print(f"{deployment.name} ({shown}, {engine}) on {len(split)} images of {split.name}")
    for line in comparison.text():
        print(line)
    if threat.rounded:
        table("the gate is on 8-bit pixels; side by side", WORST_COLUMNS, worst_rows(result))
    if found is not None and journal is not None:
        show_protocol(found)
        journal.forget()
    for note in result.notes:
        print(f"note: {note}")
    return comparison.exit_code


def _gates(result: SuiteResult, max_drop: float, *, rounded: bool) -> Comparison:
    """Compare float and engine on images as they are, or after rounding."""
    parent, deployed = (eight_bit(name) if rounded else name for name in ("float", "engine"))
    return compare_paired(
        result.clean[parent], result.robust[parent], result.clean[deployed], result.robust[deployed], max_drop=max_drop
    )
