"""``rctk compare``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.attack_extras import check_each, check_repeats
from rctk.cli.compare_run import Asked, compare_one, different, several_of
from rctk.cli.console import table
from rctk.cli.flags import DataFlags, Fraction, GridFlags, InputFlags, RecordFlags, Repeated, Switch, Whole
from rctk.cli.places import check_file
from rctk.cli.protocol_runs import chosen
from rctk.forms import need_gradients
from rctk.gate_outputs import default_summary, write_outputs
from rctk.gate_several import write_several
from rctk.gate_together import BUNDLES, exit_code_of, gate_bundles, rows_of, together_of_bundles
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
    also: Annotated[tuple[Path, ...], Repeated] = (),
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
        path: Bundle folder, or with --float FILE.onnx and --input an int8 .onnx file, TensorRT .plan or address of a
            served model.
        data: Images.
        also: A further bundle to choose from, gated on the same images; may be repeated. Verdicts are corrected for
            their number (Holm), and exit code 0 says that at least one holds.
        max_drop: Largest allowed drop, a share; choose it before you look at the result.
        plan: Only say how many images this drop needs, and whether --samples are enough; nothing is run.
        attack: Attack with settings; may be repeated.
        protocol: A fixed set of attacks in tiers instead of --attack, with the masking audit, which a gate does not
            hold without: quick, standard or full; deployed is the standard one. It can be stopped, and the same command
            goes on.
        engine: Engine that runs the deployed file.
        target: Which int8 file of the bundle; by default the engine's own, else cpu.
        parent: Float .onnx of a bare int8 file.
        each: Run and gate every attack by itself as well, with Holm's correction for their number; the exit code stays
            that of all attacks together.
        repeats: Attack with so many seeds, from --seed on; the worst case per image counts, the spread is told.
        batch_size: Most images in one pass.
        junit: Write JUnit XML there; with --also one test suite per bundle.
        summary: Append a Markdown summary there; $GITHUB_STEP_SUMMARY by default where it is set.
        json: Write the comparison as JSON there; with --also one entry per bundle.
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
    threat.model()
    need_gradients(attacks)
    folder = records.checked()
    check_repeats(repeats)
    check_each(preset, each=each)
    paths = different((path, *also))
    asked = Asked(
        data=data,
        max_drop=max_drop,
        attacks=tuple(attacks),
        preset=preset,
        engine=engine,
        target=target,
        parent=parent,
        each=each,
        repeats=repeats,
        batch_size=batch_size,
        threat=threat,
        flags=flags,
        folder=folder,
    )
    finished = [compare_one(one, asked) for one in paths]
    chances = gate_bundles({str(at): one.done.gates() for at, one in zip(paths, finished, strict=True)}) if also else {}
    for one in finished:
        one.record(asked, {"among": together_of_bundles(chances)} if also else {})
    try:
        if also:
            write_several(several_of(paths, finished, chances), junit=junit, summary=summary, json=json)
        else:
            write_outputs(finished[0].done.gates(), finished[0].name, junit=junit, summary=summary, json=json)
    finally:  # a file that cannot be written hides no verdict, and a reader who left costs no file
        for one in finished:
            one.show()
    for one in finished:
        one.journals.forget()
    if also:
        table(f"{len(finished)} bundles, any of which may ship, corrected for their number", BUNDLES, rows_of(chances))
        return exit_code_of(chances)
    return finished[0].done.gates().exit_code
