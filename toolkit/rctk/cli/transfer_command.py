"""``rctk transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rctk.cli.attack_extras import fed, settings_of
from rctk.cli.console import Bars, share, table
from rctk.cli.deployed_flags import DeployedFlags, read_images
from rctk.cli.flags import DataFlags, InputFlags, RecordFlags, Repeated, ThreatFlags, Whole
from rctk.cli.words import ratio
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.shares import Share
from rctk.evaluation.transfer_matrix import TransferMatrix, transfer_matrix
from rctk.forms import check_forms, need_gradients
from rctk.machine import machine_facts, versions
from rctk.records import Record
from rctk.several import open_all_forms, open_deployments

NO_DEPLOYED_FLAGS = DeployedFlags()
NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = ThreatFlags()
NO_RECORD_FLAGS = RecordFlags()


def transfer_(  # noqa: PLR0913  # every parameter is a flag
    *paths: Path,
    data: DataFlags,
    attack: str = "apgd-ce",
    on: Annotated[tuple[str, ...], Repeated] = ("float", "engine"),
    deployed: DeployedFlags = NO_DEPLOYED_FLAGS,
    batch_size: Whole = 64,
    threat: ThreatFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Craft on every form of one or more models and try it on all: a source x target matrix.

    PATHS are bundle folders, or .onnx files with --input (and --mean, --std), of the same classes. Only images that all
    targets get right take part; candidates go on beyond the first success.

    Example: rctk transfer model-int8 other-int8 --attack apgd-ce --data cifar10:test --samples 500 --eps 8/255

    Args:
        paths: Bundle folders or .onnx files.
        data: Images.
        attack: One attack with settings.
        on: Forms of every model: float, twin, engine or ensemble; may be repeated.
        deployed: What runs, and where.
        batch_size: Most images in one pass.
        threat: Budget.
        flags: Input of bare files.
        records: Where results go.
    """
    check_forms(on, ensemble=True)
    budget, folder, gradients = threat.model(), records.checked(), need_gradients((attack,))
    with open_deployments(
        paths, target=deployed.target, spec=flags.spec(), parent=deployed.parent, engine=deployed.engine
    ) as deployments:
        first = deployments[0]
        split = read_images(data, first)
        look = FirstLook(split, batch_size, first.classes)
        budget = fed(budget, first, look, rounded=False)
        with open_all_forms(deployments, on, deployed.engine, gradients=gradients, look=look) as subjects:
            result = transfer_matrix(
                subjects, split, attack, budget, seed=data.seed, batch_size=batch_size, progress=Bars()
            )
        subject = {
            "name": " + ".join(deployment.name for deployment in deployments),
            "sha256": " + ".join(deployment.sha256 for deployment in deployments),
            "target": first.deployed.target,
            "engine": deployed.engine,
        }
    own = {**settings_of(budget, split, deployed.engine), **result.settings}
    values = {**result.as_dict(), "notes": [*look.notes, *result.notes], "answers": look.facts}
    Record.of("transfer", subject, own, values, machine=machine_facts(), versions=versions()).append_to(folder)
    title = f"robust accuracy on {len(result.rows)} of {len(split)} images of {split.name} that all get right"
    table(f"{title}, {attack}, {budget.norm} eps {ratio(budget.eps)}", ("crafted on", *result.targets), _rows(result))
    print()
    table("of the candidates that fool the source, how many fool the target (95 %)", RATES, _rates(result))
    for note in values["notes"]:
        print(f"note: {note}")


RATES = ("source", "target", "fooled", "share", "as strong as a direct attack")


def _rows(result: TransferMatrix) -> list[tuple[str, ...]]:
    return [
        (source, *(_between(result.robust_accuracy(source, target)) for target in result.targets))
        for source in result.sources
    ]


def _rates(result: TransferMatrix) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for pair in result.as_dict()["transfer"]:
        low, high = pair["interval"]
        rate = "-" if pair["rate"] is None else f"{share(pair['rate'])} ({share(low)} to {share(high)})"
        fooled = f"{pair['fooled']}/{pair['examples']}"
        rows.append((pair["source"], pair["target"], fooled, rate, share(pair["efficiency"])))
    return rows


def _between(found: Share) -> str:
    return f"{share(found.value)} ({share(found.low)} to {share(found.high)})"
