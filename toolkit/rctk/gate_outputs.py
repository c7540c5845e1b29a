"""A comparison in words: lines for a terminal, Markdown for a job summary, JUnit XML, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from xml.etree import ElementTree as ET

from rctk.gate import Comparison, Gate
from rctk.report.words import allowed_drop, markdown, p_value, percent_between, points, points_between, text
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import RecordError

HEADINGS = (
    "accuracy",
    "float [95 %]",
    "engine [95 %]",
    "difference [95 %], points",
    "right alone, float : engine",
    "McNemar p",
    "verdict",
)


def text_lines(comparison: Comparison) -> list[str]:
    """Return a short paragraph per gate and the overall verdict."""
    lines = []
    for gate in comparison.gates:
        float_, engine, difference, discordant, p = _numbers(gate)
        lines += [
            f"{gate.name} accuracy: float {float_}, engine {engine}, difference {difference} points",
            f"  right alone, float : engine, {discordant}; McNemar p {p}",
            f"  {verdict_sentence(gate)}",
            *([f"  {gate.note}"] if gate.note else []),
        ]
    return [
        *lines,
        *([comparison.disbelief] if comparison.disbelief else []),
        f"{comparison.outcome} ({comparison.samples:,} samples, allowed drop {allowed_drop(comparison.max_drop)})",
    ]


def markdown_summary(comparison: Comparison, subject: str = "") -> str:
    """Return a Markdown section with a table of both gates, fit for ``$GITHUB_STEP_SUMMARY``."""
    title = f": {markdown(text(subject))}" if subject else ""
    rows = [[gate.name, *_numbers(gate), f"**{gate.verdict.outcome}**"] for gate in comparison.gates]
    sentences = [f"- {gate.name}: {verdict_sentence(gate)}" for gate in comparison.gates]
    notes = [f"- {gate.note}" for gate in comparison.gates if gate.note]
    table = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "\n".join(
        [
            f"### rctk compare{title}: {comparison.outcome}",
            "",
            f"{comparison.samples:,} samples, the same for both; allowed drop {allowed_drop(comparison.max_drop)}.",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            *sentences,
            *notes,
            *([f"- **{markdown(comparison.disbelief)}**"] if comparison.disbelief else []),
            "",
        ]
    )


def junit_xml(comparison: Comparison, subject: str = "") -> str:
    """Return JUnit XML with one test case per gate, and one for a masking audit that fails.

    ``does not hold`` is a failure; ``not enough samples`` is an error, so that no runner counts it as passed, and none
    takes it for a measured drop.
    """
    words = [gate.verdict.outcome for gate in comparison.gates]
    counts = {
        "tests": str(len(words) + bool(comparison.disbelief)),
        "failures": str(words.count("does not hold") + bool(comparison.disbelief)),
        "errors": str(words.count("not enough samples")),
        "skipped": "0",
    }
    root = ET.Element("testsuites", {"name": "rctk compare", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": text(subject) if subject else "rctk compare", **counts})
    for gate in comparison.gates:
        name = f"{gate.name} accuracy drops by less than {allowed_drop(comparison.max_drop)}"
        case = ET.SubElement(suite, "testcase", {"classname": "rctk.compare", "name": name})
        tag = {"does not hold": "failure", "not enough samples": "error"}.get(gate.verdict.outcome)
        if tag:
            kind = gate.verdict.outcome.replace(" ", "-")
            ET.SubElement(case, tag, {"type": kind, "message": verdict_sentence(gate)})
    if comparison.disbelief:
        case = ET.SubElement(suite, "testcase", {"classname": "rctk.compare", "name": "gradients are not masked"})
        ET.SubElement(case, "failure", {"type": "masking-audit", "message": text(comparison.disbelief, 500)})
    ET.SubElement(suite, "system-out").text = "\n".join(text_lines(comparison))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def verdict_sentence(gate: Gate) -> str:
    """Say what was decided, with the bound that decided it."""
    verdict = gate.verdict
    allowed = allowed_drop(verdict.margin)
    if verdict.outcome == "holds":
        return (
            f"holds: the difference is above -{allowed} with 95 % confidence (lower bound {points(verdict.lower, 2)})"
        )
    if verdict.outcome == "does not hold":
        return (
            f"does not hold: the drop exceeds {allowed} with 95 % confidence (upper bound {points(verdict.upper, 2)})"
        )
    between = f"the true difference may lie between {points(verdict.lower, 2)} and {points(verdict.upper, 2)} points"
    return f"not enough samples: {between}; {_needed(gate)}"


def write_outputs(
    comparison: Comparison,
    subject: str,
    *,
    junit: Path | None = None,
    summary: Path | None = None,
    json: Path | None = None,
) -> None:
    """Write the files that were asked for; the summary is appended, as CI systems expect, the others are replaced."""
    if junit is not None:
        write_file(junit, junit_xml(comparison, subject))
    if json is not None:
        write_file(json, dumps({"subject": subject, **comparison.as_dict()}, indent=2) + "\n")
    if summary is not None:
        write_file(summary, markdown_summary(comparison, subject), append=True)


def default_summary(environ: Mapping[str, str]) -> Path | None:
    """Return the job summary file that GitHub Actions names in the environment, if any."""
    name = environ.get("GITHUB_STEP_SUMMARY", "")
    return Path(name) if name else None


def _numbers(gate: Gate) -> tuple[str, str, str, str, str]:
    paired = gate.paired
    return (
        percent_between(gate.float_accuracy, *gate.float_interval),
        percent_between(gate.engine_accuracy, *gate.engine_interval),
        points_between(paired.difference, paired.low, paired.high),
        f"{paired.float_only} : {paired.engine_only}",
        p_value(paired.p_value),
    )


def _needed(gate: Gate) -> str:
    verdict = gate.verdict
    if verdict.samples_to_decide is not None:
        return f"about {verdict.samples_to_decide:,} samples would decide at the observed rates"
    if verdict.samples_if_equal is not None:
        equal = f"about {verdict.samples_if_equal:,} samples would do for an engine as good as float"
        return f"the observed difference lies on the margin; {equal}"
    return "no count of samples shows a drop of less than 0 for an engine that is only as good as float"


def write_file(path: Path, content: str, *, append: bool = False) -> None:
    """Replace or extend a file; :class:`~rctk_kernels.errors.RecordError` where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if append:
            with path.open("a", encoding="utf-8") as file:
                file.write(content)
        else:
            write_whole(path, content.encode())
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}; choose a writable file") from error
