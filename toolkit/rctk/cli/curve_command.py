"""``rctk curve``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from rctk.attacks import ATTACKS
from rctk.cli.attack_extras import fed, settings_of
from rctk.cli.console import Bars, share, table
from rctk.cli.deployed_flags import DeployedFlags, read_images
from rctk.cli.flags import DataFlags, InputFlags, RecordFlags, Repeated, ThreatFlags, Whole
from rctk.cli.words import ratio
from rctk.deployment import Deployment
from rctk.evaluation.curves import query_curves, query_values, security_curves
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.suite import attack_subjects
from rctk.forms import check_forms, need_gradients, open_forms
from rctk.machine import machine_facts, versions
from rctk.metrics.curve import BUDGETS
from rctk.records import Record
from rctk.threat import ThreatModel
from rctk_export.registry import number
from rctk_kernels.errors import OptionError

NO_DEPLOYED_FLAGS = DeployedFlags()
NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = ThreatFlags()
NO_RECORD_FLAGS = RecordFlags()
SHOWN = 12
"""Points of a query curve in the terminal; the record holds all."""


def radii(_type: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Read ``1/255,2/255,4/255`` from the command line."""
    return tuple(number(part) for part in tokens[0].value.split(",") if part)


def curve_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    attack: Annotated[tuple[str, ...], Repeated] = ("apgd-ce",),
    over: Literal["eps", "queries"] = "eps",
    budgets: Annotated[tuple[float, ...], Parameter(converter=radii, n_tokens=1, allow_leading_hyphen=True)] = BUDGETS,
    on: Annotated[tuple[str, ...], Repeated] = ("float", "engine"),
    deployed: DeployedFlags = NO_DEPLOYED_FLAGS,
    batch_size: Whole = 64,
    threat: ThreatFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Show robust accuracy over the budget or over the number of queries, and where forms meet.

    Over eps all forms meet the same candidates at every budget, and the critical strength is said: the smallest budget
    from which on every form stays within a point of float. Over queries one query attack runs at --eps.

    Example: rctk curve model-int8 --data cifar10:test --samples 300 --budgets 1/255,2/255,4/255,8/255

    Args:
        path: Bundle folder, or an .onnx file with --input (and --mean, --std).
        data: Images.
        attack: Attack with settings; may be repeated over eps.
        over: eps, or queries for one query attack such as square:queries=1000.
        budgets: Radii of the curve over eps; --eps plays no part there.
        on: What to attack: float, twin or engine; may be repeated.
        deployed: What runs, and where.
        batch_size: Most images in one pass.
        threat: Norm; budget of a curve over queries.
        flags: Input of a bare file.
        records: Where results go.
    """
    check_forms(on)
    single = one_attack(attack) if over == "queries" else ""
    steps = [ThreatModel(norm=threat.norm, eps=eps) for eps in budgets]
    budget, folder, gradients = threat.model(), records.checked(), need_gradients(attack)
    with deployed.open(path, flags) as deployment:
        deployed = deployed.for_(deployment)
        split = read_images(data, deployment)
        look = FirstLook(split, batch_size, deployment.classes)
        budget = fed(budget, deployment, look, rounded=False)
        how: dict[str, Any] = {"seed": data.seed, "batch_size": batch_size, "progress": Bars()}
        with open_forms(deployment, on, deployed.engine, gradients=gradients, look=look) as subjects:
            if over == "queries":
                by_queries = query_curves(subjects, split, single, budget, **how)
                values = {name: query_values(found) for name, found in by_queries.items()}
                notes = look.notes
            else:
                curves = security_curves(
                    lambda at: attack_subjects(subjects, split, attack, at, **how),
                    budget,
                    [step.eps for step in steps],
                    look.classes,
                )
                values = {name: curves.values(name) for name in curves.curves}
                notes = [*look.notes, *curves.notes()]
        own = {
            **settings_of(budget, split, deployed.engine),
            "attack": " + ".join(attack),
            "seed": data.seed,
            "over": over,
        }
        for name, found in values.items():
            whole = {"samples": len(split), **found, "notes": notes, "answers": look.facts[name]}
            subject = _subject(deployment, name, deployed.engine)
            Record.of("curve", subject, own, whole, machine=machine_facts(), versions=versions()).append_to(folder)
    title = f"{deployment.name} on {len(split)} images of {split.name}, {' + '.join(attack)}, {budget.norm}"
    for name, found in values.items():
        _show(title if over == "eps" else f"{title} eps {ratio(budget.eps)}", name, found)
    _say_critical(next(iter(values.values())).get("critical_strength"))
    for note in notes:
        print(f"note: {note}")


def one_attack(attacks: Sequence[str]) -> str:
    """Return the attack of a curve over queries."""
    if len(attacks) != 1 or ATTACKS.build(attacks[0]).kind != "query":
        raise OptionError(
            f"--over queries needs one query attack such as --attack square:queries=1000, got {', '.join(attacks)}"
        )
    return attacks[0]


def _subject(deployment: Deployment, name: str, engine: str) -> dict[str, str]:
    return {
        "name": deployment.name,
        "sha256": deployment.sha256,
        "role": "float" if name == "float" else "int8",
        "target": "" if name == "float" else deployment.deployed.target,
        "engine": engine if name == "engine" else name,
    }


def _show(title: str, name: str, found: Mapping[str, Any]) -> None:
    points, over = found["points"], found["over"]
    every = max(1, -(-len(points) // SHOWN))
    shown = [point for at, point in enumerate(points) if at % every == 0 or at == len(points) - 1]
    rows = [
        (
            ratio(point["eps"]) if over == "eps" else str(point["queries"]),
            f"{share(point['accuracy'])} ({share(point['low'])} to {share(point['high'])})",
        )
        for point in shown
    ]
    table(f"{name} of {title}", (over, "robust (95 %)"), rows)
    median = found.get("median_queries")
    print("" if median is None else f"median queries of the images that broke: {median:g}\n")


def _say_critical(critical: Mapping[str, Any] | None) -> None:
    if critical is None:
        return
    floor = ", where float is at chance" if critical["at_floor"] else ""
    eps = critical["eps"]
    print(
        "critical strength: none of these budgets; the forms still differ by more than a point at the largest"
        if eps is None
        else f"critical strength {ratio(eps)}: from there on every form is within a point of float{floor}"
    )
