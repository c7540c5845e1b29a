"""``rctk stress``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from rctk.cli.console import Bars, share, table
from rctk.cli.deployed_flags import DeployedFlags, read_images
from rctk.cli.flags import DataFlags, InputFlags, RecordFlags, Repeated, Whole
from rctk.deployment import Deployment
from rctk.forms import check_forms
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk.stress.forms import open_predictors
from rctk.stress.plan import plan, severities
from rctk.stress.run import StressResult, stress
from rctk.stress.summary import overall_lines, record_values, table_rows

NO_DEPLOYED_FLAGS = DeployedFlags()
NO_INPUT_FLAGS = InputFlags()
NO_RECORD_FLAGS = RecordFlags()


def levels(_type: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Read ``1..5``, ``3`` or ``1,3,5`` from the command line."""
    return severities(tokens[0].value)


def stress_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    corruption: Annotated[tuple[str, ...], Repeated] = ("all",),
    severity: Annotated[tuple[int, ...], Parameter(converter=levels, n_tokens=1)] = (1, 2, 3, 4, 5),
    test: Annotated[tuple[str, ...], Repeated] = (),
    source: Literal["auto", "published", "generated"] = "auto",
    on: Annotated[tuple[str, ...], Repeated] = ("float", "engine"),
    deployed: DeployedFlags = NO_DEPLOYED_FLAGS,
    batch_size: Whole = 64,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Measure accuracy under stress that nobody crafted: float against engine on the same images.

    The first form named by --on is the baseline of mCE and of all differences.

    Example: rctk stress model-int8 --data cifar10:test --corruption benchmark --severity 1..5

    Args:
        path: Bundle folder, or an .onnx file with --input (and --mean, --std).
        data: Images.
        corruption: all, benchmark (the 15 of mCE), noise, blur, weather, digital, held-out, a name, or none; may be
            repeated. See `docs/stress.md`.
        severity: 1..5, a list such as 1,3,5, or a single one.
        test: occlusion, spatial or jpeg with settings, such as spatial:search=grid; may be repeated.
        source: Published arrays below RCTK_DATA where they are (auto), only those, or only generated images.
        on: What to test: float, twin or engine; may be repeated.
        deployed: What runs, and where.
        batch_size: Most images in one pass.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_forms(on)
    chosen, folder = tuple(dict.fromkeys(on)), records.checked()
    with deployed.open(path, flags) as deployment:
        deployed = deployed.for_(deployment)
        split = read_images(data, deployment)
        conditions = plan(split, corruption, severity, test, source=source, seed=data.seed)
        with open_predictors(deployment, chosen, deployed.engine) as subjects:
            result = stress(subjects, split, conditions, batch_size=batch_size, progress=Bars())
    settings = {
        "data": split.name,
        "fingerprint": split.fingerprint,
        "corruption": corruption,
        "severity": severity,
        "test": test,
        "source": source,
        "seed": data.seed,
        "batch_size": batch_size,
    }
    _append(result, deployment, settings, deployed.engine, folder)
    columns = ("test", "images", *(f"{name}, from mild to hard" for name in chosen), *(f"mean {n}" for n in chosen))
    columns += tuple(f"{name} - {chosen[0]}, points (95 %)" for name in chosen[1:])
    title = f"{deployment.name} on {len(split)} images of {split.name}, seed {data.seed}"
    table(title, columns, table_rows(result, chosen, seed=data.seed))
    clean = ", ".join(f"{name} {share(float(result.clean[name].mean()))}" for name in chosen)
    print(f"clean: {clean}")
    for line in (*overall_lines(result, chosen, seed=data.seed), *(f"note: {note}" for note in result.notes)):
        print(line)


def _append(result: StressResult, deployment: Deployment, settings: dict[str, Any], engine: str, folder: Path) -> None:
    facts, software = machine_facts(), versions()
    baseline = next(iter(result.clean))
    for name in result.clean:
        subject = {
            "name": deployment.name,
            "sha256": deployment.sha256,
            "role": "float" if name == "float" else "int8",
            "target": "" if name == "float" else deployment.deployed.target,
            "engine": "twin" if name == "twin" else engine,
        }
        values = record_values(result, name, baseline, seed=settings["seed"])
        Record.of("stress", subject, settings, values, machine=facts, versions=software).append_to(folder)
