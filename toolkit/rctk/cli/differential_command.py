"""``rctk differential``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rctk.cli.attack_extras import fed, settings_of
from rctk.cli.console import Bars, share, table
from rctk.cli.deployed_flags import DeployedFlags, read_images
from rctk.cli.flags import DataFlags, InputFlags, RecordFlags, Repeated, ThreatFlags, Whole
from rctk.cli.words import ratio
from rctk.evaluation.differential import DEFAULT_SEARCHES, SEARCHES, DifferentialResult, Search, differential
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.shares import Share
from rctk.forms import open_forms
from rctk.machine import machine_facts, versions
from rctk.records import Record

NO_DEPLOYED_FLAGS = DeployedFlags()
NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = ThreatFlags()
NO_RECORD_FLAGS = RecordFlags()
COLUMNS = ("wrong", "right", "search", "fooled (95 %)", "fooled unseen (95 %)", "unseen of the fooled (95 %)")


def differential_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    search: Annotated[tuple[str, ...], Repeated] = DEFAULT_SEARCHES,
    replay_every: Whole = 1,
    deployed: DeployedFlags = NO_DEPLOYED_FLAGS,
    batch_size: Whole = 64,
    threat: ThreatFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Search for images that the engine gets wrong and the float model right, and the reverse.

    Such an image is a failure that a float monitor cannot see. Success is the share of images that fool the form under
    attack, evasion the share of those that the other form still gets right; both must be said by float file and engine
    themselves. It measures the gap between them and no robust accuracy.

    Example: rctk differential model-int8 --data cifar10:test --samples 300 --eps 8/255

    Args:
        path: Bundle folder, or an int8 .onnx file with --float FILE.onnx and --input.
        data: Images.
        search: diva, pgd, border-walk or disagreement with settings; may be repeated.
        replay_every: Steps between two iterates that are tried on engine and float.
        deployed: What runs, and where.
        batch_size: Most images in one pass.
        threat: Budget.
        flags: Input of a bare file.
        records: Where results go.
    """
    budget, folder = threat.model(), records.checked()
    gradients = "gradient" in [SEARCHES.build(text).kind for text in search]
    with deployed.open(path, flags) as deployment:
        deployed = deployed.for_(deployment)
        split = read_images(data, deployment)
        look = FirstLook(split, batch_size, deployment.classes)
        budget = fed(budget, deployment, look, rounded=False)
        with open_forms(deployment, ("float", "engine"), deployed.engine, gradients=gradients, look=look) as subjects:
            first, second = subjects
            result = differential(
                first,
                second,
                split,
                budget,
                searches=search,
                seed=data.seed,
                batch_size=batch_size,
                replay_every=replay_every,
                progress=Bars(),
            )
        subject = {
            "name": deployment.name,
            "sha256": deployment.sha256,
            "role": "int8",
            "target": deployment.deployed.target,
            "engine": deployed.engine,
        }
    own = {**settings_of(budget, split, deployed.engine), **result.settings}
    values = {**result.as_dict(), "notes": [*look.notes, *result.notes], "answers": look.facts}
    Record.of("differential", subject, own, values, machine=machine_facts(), versions=versions()).append_to(folder)
    title = f"{deployment.name}: {len(result.rows)} of {len(split)} images of {split.name} that both get right"
    table(f"{title}, {budget.norm} eps {ratio(budget.eps)}", COLUMNS, _rows(result))
    for note in values["notes"]:
        print(f"note: {note}")


def _rows(result: DifferentialResult) -> list[tuple[str, ...]]:
    return [
        (direction.fooled, direction.unaware, text, *_shares(search))
        for direction in result.directions
        for text, search in (*direction.searches.items(), ("all of them", direction.union))
    ]


def _shares(search: Search) -> tuple[str, str, str]:
    return _between(search.success), _between(search.evasive_share), _between(search.evasion)


def _between(found: Share) -> str:
    return "-" if found.value is None else f"{share(found.value)} ({share(found.low)} to {share(found.high)})"
