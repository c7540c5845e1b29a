"""What `rctk attack` says beside accuracies: answers at first look, spread of repeats, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rctk.cli.console import table
from rctk.data import Split
from rctk.deployment import Deployment
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.protocol import Protocol
from rctk.evaluation.subjects import EIGHT_BIT, Subject
from rctk.evaluation.suite import SuiteResult
from rctk.metrics.measured import METRICS
from rctk.metrics.of_suite import suite_metrics
from rctk.progress import Progress
from rctk.statistics.planning import Spread
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

SIZE_COLUMNS = ("attacked", "success", "l2 mean / median", "linf mean / median", "queries mean / median", "relative")
METRIC_COLUMNS = ("metric", "attacked", "value", "more")
PIXELS = "the product feeds 8-bit pixels: adversarial images are on the uint8 grid, and no step is smaller than a level"

Measured = Mapping[str, Mapping[str, dict[str, Any]]]
"""Metric as it was asked for to form to values."""


def fed(budget: ThreatModel, deployment: Deployment, look: FirstLook, *, rounded: bool) -> ThreatModel:
    """Return the budget on the grid that the product feeds, and note where that was not what was asked for."""
    if deployment.input.dtype != "uint8" or budget.grid == "uint8" or rounded:
        return budget
    look.notes.append(PIXELS)
    return replace(budget, grid="uint8")


def check_extras(metrics: Sequence[str], repeats: int) -> bool:
    """Refuse a metric or a setting that does not exist; say whether any is wanted, because most need gradients."""
    found = [METRICS.build(text) for text in metrics]
    check_repeats(repeats)
    return bool(found)


def check_repeats(repeats: int) -> None:
    """Refuse fewer runs than one."""
    if repeats < 1:
        raise OptionError(f"--repeats must be at least 1, got {repeats}")


def check_each(preset: Protocol | None, *, each: bool) -> None:
    """Refuse separate gates of a protocol: a tier sees only the images that those before it left."""
    if preset is not None and each:
        attacks = " ".join(f"--attack {text}" for text in preset.attacks)
        raise OptionError(
            "--each gates every attack on all images, a protocol shows later tiers only what the earlier ones left; "
            f"name the attacks instead: {attacks} --each"
        )


def check_measurable(metrics: Sequence[str], subjects: Sequence[Subject], threat: ThreatModel) -> None:
    """Refuse a metric that one of the forms does not allow, before hours are spent on attacks."""
    for text in metrics:
        for subject in subjects:
            if subject.judged:
                METRICS.build(text).check(subject, threat)


def measure(  # noqa: PLR0913  # what, of whom, on what, and how
    metrics: Sequence[str],
    subjects: Sequence[Subject],
    split: Split,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> Measured:
    """Measure every metric on every form that is judged."""
    judged = [subject for subject in subjects if subject.judged]
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for text in dict.fromkeys(metrics):
        metric = METRICS.build(text)
        with progress.stage(text, len(judged)) as step:
            for subject in judged:
                found = metric(subject, split, threat, seed=seed, batch_size=batch_size)
                measured.setdefault(text, {})[subject.name] = found
                step(1)
    return measured


def extras(
    result: SuiteResult, split: Split, look: FirstLook, spreads: Mapping[str, Spread], measured: Measured
) -> dict[str, dict[str, Any]]:
    """Return for every subject what its record holds beside accuracies."""
    values: dict[str, dict[str, Any]] = {}
    for name in result.clean:
        form = name.removesuffix(EIGHT_BIT)
        values[name] = suite_metrics(result, split, name)
        values[name]["answers"] = look.facts.get(form, {})
        if name in spreads:
            values[name]["repeats"] = spreads[name]._asdict()
        if measured and form == name:
            values[name]["metrics"] = {text: forms[form] for text, forms in measured.items() if form in forms}
    return values


def show(extra: Mapping[str, Mapping[str, Any]], spreads: Mapping[str, Spread], measured: Measured) -> None:
    """Print sizes of successes, the spread of repeats, and metrics."""
    print()
    table("images that broke", SIZE_COLUMNS, [_sizes(name, values) for name, values in extra.items()])
    for name, found in spreads.items():
        print(f"{name}: {found.text()}")
    rows = [(text, name, *_metric(values)) for text, forms in measured.items() for name, values in forms.items()]
    if rows:
        print()
        table("metrics", METRIC_COLUMNS, rows)


def _sizes(name: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    relative = values.get("relative_robustness", {}).get("ratio")
    success = values["success"]
    return (
        name,
        "-" if success is None else f"{success:.1%}",
        *(
            f"{_number(values[f'mean_{key}'])} / {_number(values[f'median_{key}'])}"
            for key in ("l2", "linf", "queries")
        ),
        "-" if relative is None else f"{relative:.3f}",
    )


def _metric(values: Mapping[str, Any]) -> tuple[str, str]:
    interval = f" ({values['low']:.4g} to {values['high']:.4g})" if "low" in values else ""
    hidden = ("value", "low", "high", "scores")
    more = ", ".join(f"{key} {_number(value)}" for key, value in values.items() if key not in hidden)
    return f"{values['value']:.4g}{interval}", more


def _number(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def settings_of(budget: ThreatModel, split: Split, engine: str) -> dict[str, Any]:
    """Return the settings that every record of an attack holds."""
    return {**asdict(budget), "data": split.name, "fingerprint": split.fingerprint, "engine": engine}
