"""Several bundles gated at once in files: one JUnit test suite, one JSON entry and one Markdown row per bundle.

Each states the outcome corrected for the number of bundles, and the uncorrected p-values beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from rctk.gate import Comparison
from rctk.gate_outputs import markdown_summary, text_lines, write_file
from rctk.gate_together import ALPHA, BundleGate, exit_code_of, together_of_bundles
from rctk.report.words import allowed_drop, markdown, p_value, text

VERSION = 2
"""Of the JSON for several bundles; the JSON of one comparison has no version and is what version 1 would be."""
FAULTS = {"does not hold": "failure", "not enough samples": "error"}
"""Outcome to the JUnit element that stands for it."""


class OneOfSeveral(NamedTuple):
    """One of several bundles.

    Attributes:
        subject: Its name and target.
        comparison: Both gates, each at 5 %, as if it were the only bundle.
        gate: Both together, corrected.
    """

    subject: str
    comparison: Comparison
    gate: BundleGate


Several = Mapping[str, OneOfSeveral]
"""Path as it was given to what was found there."""


def write_several(
    several: Several, *, junit: Path | None = None, summary: Path | None = None, json: Path | None = None
) -> None:
    """Write the files that were asked for; the summary is appended, the others are replaced."""
    if junit is not None:
        write_file(junit, junit_of_several(several))
    if json is not None:
        write_file(json, dumps(json_of_several(several), indent=2) + "\n")
    if summary is not None:
        sections = [markdown_summary(one.comparison, one.subject) for one in several.values()]
        write_file(summary, "\n".join([*sections, markdown_of_several(several)]), append=True)


def json_of_several(several: Several) -> dict[str, Any]:
    """Return JSON values; an entry holds those of a single comparison, and ``corrected``."""
    gates = {path: one.gate for path, one in several.items()}
    corrected, code = together_of_bundles(gates), exit_code_of(gates)
    return {
        "version": VERSION,
        "correction": "holm",
        "alpha": ALPHA,
        "exit_code": code,
        "bundles": [
            {"path": path, "subject": one.subject, **one.comparison.as_dict(), "corrected": corrected[path]}
            for path, one in several.items()
        ],
    }


def junit_of_several(several: Several) -> str:
    """Return JUnit XML with one suite per bundle: the corrected gate, and a case for a masking audit that fails.

    A suite that fails says that this bundle may not ship; whether another may is the exit code.
    """
    suites = [_suite(path, one, len(several)) for path, one in several.items()]
    totals = {key: str(sum(int(suite.get(key, "0")) for suite in suites)) for key in ("tests", "failures", "errors")}
    root = ET.Element("testsuites", {"name": "rctk compare", **totals, "skipped": "0"})
    root.extend(suites)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def markdown_of_several(several: Several) -> str:
    """Return a Markdown section that names the bundles which hold after the correction."""
    rows = [
        f"| {markdown(text(path, 200))} | {p_value(one.gate.p_holds)} ({p_value(one.gate.uncorrected_p_holds)}) "
        f"| {p_value(one.gate.p_fails)} ({p_value(one.gate.uncorrected_p_fails)}) | **{one.gate.outcome}** |"
        for path, one in several.items()
    ]
    return "\n".join(
        [
            f"### rctk compare: {len(several)} bundles, any of which may ship",
            "",
            "Holm-corrected for their number; uncorrected p in brackets.",
            "",
            "| bundle | p: holds | p: fails | verdict |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def sentence(gate: BundleGate, bundles: int) -> str:
    """Say what was decided about one of several bundles, with corrected and uncorrected p-values.

    Example:
        >>> sentence(BundleGate("holds", 0.02, 1.0, "", 0.01, 1.0), 2)
        'holds, Holm-corrected for 2 bundles: p 0.020 for holding (uncorrected 0.010), p 1.000 for failing (1.000)'
    """
    return (
        f"{gate.outcome}, Holm-corrected for {bundles} bundles: p {p_value(gate.p_holds)} for holding (uncorrected "
        f"{p_value(gate.uncorrected_p_holds)}), p {p_value(gate.p_fails)} for failing "
        f"({p_value(gate.uncorrected_p_fails)})"
    )


def _suite(path: str, one: OneOfSeveral, bundles: int) -> ET.Element:
    gate, disbelief = one.gate, one.comparison.disbelief
    tag = FAULTS.get(gate.outcome)
    counts = {"tests": 1 + bool(disbelief), "failures": (tag == "failure") + bool(disbelief), "errors": tag == "error"}
    numbers = {name: str(int(count)) for name, count in counts.items()}
    suite = ET.Element("testsuite", {"name": text(path, 500), **numbers, "skipped": "0"})
    properties = ET.SubElement(suite, "properties")
    for name, value in {
        "subject": one.subject,
        "uncorrected_outcome": one.comparison.outcome,
        **gate._asdict(),
    }.items():
        ET.SubElement(properties, "property", {"name": name, "value": text(str(value), 500)})
    drop = allowed_drop(one.comparison.max_drop)
    name = f"clean and robust accuracy drop by less than {drop}, one of {bundles} bundles"
    case = ET.SubElement(suite, "testcase", {"classname": "rctk.compare", "name": name})
    if tag is not None:
        ET.SubElement(case, tag, {"type": gate.outcome.replace(" ", "-"), "message": sentence(gate, bundles)})
    if disbelief:
        case = ET.SubElement(suite, "testcase", {"classname": "rctk.compare", "name": "gradients are not masked"})
        ET.SubElement(case, "failure", {"type": "masking-audit", "message": text(disbelief, 500)})
    ET.SubElement(suite, "system-out").text = "\n".join([*text_lines(one.comparison), sentence(gate, bundles)])
    return suite
