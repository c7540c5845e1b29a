"""``rctk audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rctk.audit import Audit, Examined, audit
from rctk.cli.console import Bars, table
from rctk.cli.deployed_flags import DeployedFlags, read_images
from rctk.cli.flags import DataFlags, InputFlags, Repeated, ThreatFlags, Whole
from rctk.data.split import check_labels
from rctk.evaluation.first_look import FirstLook
from rctk.forms import check_forms, open_forms

NO_DEPLOYED_FLAGS = DeployedFlags()
NO_INPUT_FLAGS = InputFlags()
NO_THREAT_FLAGS = ThreatFlags()


def audit_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    data: DataFlags,
    on: Annotated[tuple[str, ...], Repeated] = ("float", "engine"),
    deployed: DeployedFlags = NO_DEPLOYED_FLAGS,
    batch_size: Whole = 64,
    threat: ThreatFlags = NO_THREAT_FLAGS,
    flags: InputFlags = NO_INPUT_FLAGS,
) -> int:
    """Check whether robust accuracies of a model can be believed: does an attack see, or is its gradient masked?

    Exit code 0: no check fails. 1: one does, and no robust accuracy of that form should be believed.

    Example: rctk audit model-int8 --data cifar10:test --samples 300 --eps 8/255

    Args:
        path: Bundle folder, or an .onnx file with --input (and --mean, --std).
        data: Images; a few hundred are enough.
        on: What to audit: float, twin or engine; may be repeated.
        deployed: What runs, and where.
        batch_size: Most images in one pass.
        threat: Budget.
        flags: Input of a bare file.
    """
    check_forms(on)
    budget = threat.model()
    done: list[Audit] = []
    with deployed.open(path, flags) as deployment:
        split = read_images(data, deployment)
        wanted = dict.fromkeys(("float", *on)) if deployment.float is not None else dict.fromkeys(on)
        look = FirstLook(split, batch_size, deployment.classes)
        with open_forms(deployment, list(wanted), deployed.engine) as subjects:
            for subject in subjects:
                look(subject)  # refuses NaN and other classes; probabilities are for a check to find
            check_labels(split, look.classes)
            first: Examined | None = None
            for subject in subjects:
                form = Examined(
                    name=subject.name,
                    predict=subject.predict,
                    model=subject.model,  # type: ignore[arg-type]  # a torch module wherever it is not None
                    split=split,
                    threat=budget,
                    parent=first,
                    seed=data.seed,
                    batch_size=batch_size,
                )
                first = first or (form if subject.name == "float" else None)
                if subject.name in on:
                    done.append(audit(form, Bars()))
    for found in done:
        rows = [(r.check, r.verdict, r.found, r.limits, r.advice) for r in found.results]
        title = f"{found.name} of {deployment.name}: {found.verdict} ({found.samples} images)"
        table(title, ("check", "verdict", "found", "limits", "what to do"), rows)
    return int(any(found.verdict == "fails" for found in done))
