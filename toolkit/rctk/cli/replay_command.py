"""``rctk replay``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rctk.cli.attack_extras import settings_of
from rctk.cli.attack_records import ATTACK_COLUMNS, WORST_COLUMNS, append_attacks, attack_rows, worst_rows
from rctk.cli.console import Bars, table
from rctk.cli.flags import InputFlags, RecordFlags, Whole
from rctk.cli.words import ratio
from rctk.deployment import Deployment, open_deployment
from rctk.evaluation.first_look import FirstLook
from rctk.forms import open_forms
from rctk.metrics.of_suite import suite_metrics
from rctk.replay import Candidates, SetResult, read_candidates, replay
from rctk_kernels.errors import DataError

NO_INPUT_FLAGS = InputFlags()
NO_RECORD_FLAGS = RecordFlags()
SET_COLUMNS = ("made for", "right on both", "broken there", "broken here", "broken on both")


def replay_(  # noqa: PLR0913  # every parameter is a flag
    candidates: Path,
    path: Path,
    /,
    *,
    engine: str = "onnxruntime",
    target: str | None = None,
    batch_size: Whole = 64,
    flags: InputFlags = NO_INPUT_FLAGS,
    records: RecordFlags = NO_RECORD_FLAGS,
) -> None:
    """Judge adversarial images that `rctk attack --save-candidates` made elsewhere with the engine here.

    CANDIDATES is that one file; PATH is a bundle folder, an .onnx file or the address of a served model. Needs NumPy
    and one runtime, so that white-box attacks reach a device that has no torch.

    Example: rctk replay candidates.npz model-int8 --engine tensorrt

    Args:
        candidates: File of candidates; every byte of it is checked.
        path: Bundle folder, .onnx file, or address of a served model.
        engine: Engine that runs the deployed file.
        target: Which int8 file of the bundle; by default the engine's own, else cpu.
        batch_size: Most images in one pass.
        flags: Input of a bare file.
        records: Where results go.
    """
    folder, shipped = records.checked(), read_candidates(candidates)
    spec = flags.spec()
    with open_deployment(path, target=target, spec=spec, engine=engine) as deployment:
        engine = deployment.engine_of(engine)
        _check_fit(shipped, deployment)
        look = FirstLook(shipped.split, batch_size, deployment.classes)
        with open_forms(deployment, ["engine"], engine, gradients=False, look=look) as (subject,):
            result, sets = replay(subject, shipped, batch_size=batch_size, progress=Bars())
        notes = (*_notes(shipped, sets, deployment), *look.notes, *result.notes)
        result = replace(result, notes=notes)
        settings = {**settings_of(shipped.threat, shipped.split, engine), **result.settings, "made": shipped.facts}
        values = {**suite_metrics(result, shipped.split, "engine"), "replay": [each._asdict() for each in sets]}
        append_attacks(result, deployment, settings, folder, None, {"engine": values})
    budget = f"{shipped.threat.norm} eps {ratio(shipped.threat.eps)}"
    table(
        f"{deployment.name} on {len(shipped.split)} images of {shipped.split.name}, {budget}",
        SET_COLUMNS,
        sets_rows(sets),
    )
    print()
    table("attacks", ATTACK_COLUMNS, attack_rows(result))
    print()
    table("accuracy under all of them, worst case per image", WORST_COLUMNS, worst_rows(result))
    for note in result.notes:
        print(f"note: {note}")


def sets_rows(sets: list[SetResult]) -> list[tuple[str, ...]]:
    """Return one row per set of candidates."""
    return [
        (each.name, *(str(count) for count in (each.common, each.broken_there, each.broken_here, each.broken_both)))
        for each in sets
    ]


def _check_fit(shipped: Candidates, deployment: Deployment) -> None:
    if deployment.input.shape != shipped.input.shape:
        raise DataError(
            f"the candidates have shape {shipped.input.shape}, {deployment.name} takes {deployment.input.shape}; "
            "make them for this model"
        )


def _notes(shipped: Candidates, sets: list[SetResult], deployment: Deployment) -> list[str]:
    notes = [f"{each.moved} candidates for {each.name} were outside of the budget" for each in sets if each.moved]
    if shipped.file_sha256 != deployment.deployed.sha256 and not deployment.served:
        notes.append("the candidates were made for another file than this one: what they break here is transfer")
    return notes
