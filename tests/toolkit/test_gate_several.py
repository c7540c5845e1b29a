"""Several bundles in files: one suite, one entry and one row per bundle, with corrected and uncorrected numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rctk.gate import compare_paired
from rctk.gate_outputs import write_outputs
from rctk.gate_several import OneOfSeveral, json_of_several, junit_of_several, write_several
from rctk.gate_together import gate_bundles
from rctk.statistics.holm import non_inferiority_p

HOSTILE = 'a|b <img src=x> & "q" \x1b[31m'


def compared(lost, n=180, disbelief=""):
    right = np.ones(n, dtype=bool)
    engine = right.copy()
    engine[:lost] = False
    return replace(compare_paired(right, right, right, engine, max_drop=0.02), disbelief=disbelief)


def several(**comparisons):
    gates = gate_bundles(comparisons)
    return {path: OneOfSeveral(f"net {path}", one, gates[path]) for path, one in comparisons.items()}


def test_a_bundle_that_holds_alone_is_an_error_among_two_and_both_p_values_stand_there():
    alone = non_inferiority_p(0, 0, 180, 0.02)  # 0.0275: below 0.05 alone, above it twice
    root = ET.fromstring(junit_of_several(several(a=compared(0), b=compared(4))))
    first, second = root.findall("testsuite")
    assert [suite.get("name") for suite in (first, second)] == ["a", "b"]
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["2", "0", "2"]
    held = {one.get("name"): one.get("value") for one in first.iter("property")}
    assert float(held["p_holds"]) == pytest.approx(2 * alone)
    assert float(held["uncorrected_p_holds"]) == pytest.approx(alone)
    assert (held["outcome"], held["uncorrected_outcome"]) == ("not enough samples", "holds")
    (error,) = first.iter("error")
    assert error.get("message").startswith("not enough samples, Holm-corrected for 2 bundles: p 0.055 for holding (unc")
    assert "(uncorrected 0.028)" in error.get("message")


def test_what_fails_is_counted_per_bundle_and_in_all():
    root = ET.fromstring(
        junit_of_several(several(good=compared(0, 1000), bad=compared(200, 1000), masked=compared(0, 1000, "blind")))
    )
    counts = [[suite.get(key) for key in ("tests", "failures", "errors")] for suite in root.findall("testsuite")]
    assert counts == [["1", "0", "0"], ["1", "1", "0"], ["2", "2", "0"]]
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["4", "3", "0"]
    assert [one.get("type") for one in root.iter("failure")] == ["does-not-hold", "does-not-hold", "masking-audit"]


def test_json_has_an_entry_per_bundle_around_the_values_of_a_single_one():
    one = compared(0, 1000)
    made = json_of_several(several(a=one, b=compared(200, 1000)))
    assert (made["version"], made["correction"], made["exit_code"]) == (2, "holm", 0)  # one that holds is enough
    first, second = made["bundles"]
    assert {key: first[key] for key in one.as_dict()} == one.as_dict()
    assert (first["path"], first["subject"], first["corrected"]["outcome"]) == ("a", "net a", "holds")
    assert (second["exit_code"], second["corrected"]["outcome"]) == (1, "does not hold")
    assert set(first["corrected"]) >= {"p_holds", "p_fails", "uncorrected_p_holds", "uncorrected_p_fails"}


def test_the_json_of_one_bundle_keeps_its_shape(tmp_path):
    write_outputs(compared(0), "net cpu", json=tmp_path / "one.json")
    made = json.loads((tmp_path / "one.json").read_text())
    keys = {"subject", "samples", "max_drop", "outcome", "exit_code", "disbelief", "clean", "robust"}
    assert set(made) == keys


def test_files_are_written_and_the_summary_is_appended(tmp_path):
    files = {"junit": tmp_path / "ci" / "gate.xml", "json": tmp_path / "gate.json", "summary": tmp_path / "s.md"}
    files["summary"].write_text("before\n")
    write_several(several(**{HOSTILE: compared(0, 1000), "b": compared(200, 1000)}), **files)
    assert len(ET.parse(files["junit"]).getroot().findall("testsuite")) == 2
    assert len(json.loads(files["json"].read_text())["bundles"]) == 2
    summary = files["summary"].read_text()
    assert summary.startswith("before\n### rctk compare: net ")
    assert "### rctk compare: 2 bundles, any of which may ship" in summary
    assert summary.count("**does not hold**") == 2  # of the robust gate, and corrected
    assert "\x1b" not in summary
    assert "<img" not in files["junit"].read_text()
