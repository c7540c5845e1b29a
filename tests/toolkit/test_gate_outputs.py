import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rctk.gate import compare_paired
from rctk.gate_outputs import default_summary, junit_xml, markdown_summary, text_lines, write_outputs
from rctk_kernels.errors import RecordError

HOSTILE = 'a|b <img src=x> & "q" \x1b[31m\x00 ]]> `code` [l](u)\nnext'


def compared(lost, n=1000, max_drop=0.02, robust=True):
    right = np.ones(n, dtype=bool)
    engine = right.copy()
    engine[:lost] = False
    float_robust = right if robust else ~right
    return compare_paired(right, float_robust, right, engine & float_robust, max_drop=max_drop)


def test_lines_for_a_terminal():
    assert text_lines(compared(12)) == [
        "clean accuracy: float 100.0 % [99.6, 100.0], engine 100.0 % [99.6, 100.0], difference 0.0 [-0.4, +0.4] points",
        "  right alone, float : engine, 0 : 0; McNemar p 1.000",
        "  holds: the difference is above -2 points with 95 % confidence (lower bound -0.27)",
        "robust accuracy: float 100.0 % [99.6, 100.0], engine 98.8 % [97.9, 99.3], difference -1.2 [-2.1, -0.7] points",
        "  right alone, float : engine, 12 : 0; McNemar p < 0.001",
        "  holds: the difference is above -2 points with 95 % confidence (lower bound -1.91)",
        "holds (1,000 samples, allowed drop 2 points)",
    ]


@pytest.mark.parametrize(
    ("lost", "n", "max_drop", "sentence"),
    [
        (40, 1000, 0.02, "does not hold: the drop exceeds 2 points with 95 % confidence (upper bound -3.10)"),
        (0, 50, 0.02, "between -5.13 and +5.13 points; about 152 samples would decide at the observed rates"),
        (1, 50, 0.02, "the observed difference lies on the margin; about 455 samples would do"),
        (0, 50, 0.0, "no count of samples shows a drop of less than 0"),
        (0, 1000, 0.01, "the difference is above -1 point with"),
    ],
)
def test_verdicts_name_the_bound_or_the_count(lost, n, max_drop, sentence):
    assert any(sentence in line for line in text_lines(compared(lost, n, max_drop)))


def test_the_summary_is_a_table_with_a_row_per_gate():
    lines = markdown_summary(compared(12), "resnet20 cpu").splitlines()
    assert lines[0] == "### rctk compare: resnet20 cpu: holds"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {8}
    assert table[3].startswith("| robust | 100.0 % [99.6, 100.0] | 98.8 % [97.9, 99.3] | -1.2 [-2.1, -0.7] | 12 : 0 |")


def test_a_hostile_name_stays_text_in_markdown():
    heading = markdown_summary(compared(0), HOSTILE).splitlines()[0]
    assert "<img" not in heading
    assert "\x1b" not in heading
    assert r"a\|b &lt;img" in heading
    assert r"\[l\](u) next" in heading


@pytest.mark.parametrize(
    ("lost", "n", "tags"),
    [(0, 1000, [[], []]), (40, 1000, [[], ["failure"]]), (0, 50, [["error"], ["error"]])],
)
def test_junit_has_one_case_per_gate_and_right_totals(lost, n, tags):
    root = ET.fromstring(junit_xml(compared(lost, n), "net"))
    cases = root.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == [
        "clean accuracy drops by less than 2 points",
        "robust accuracy drops by less than 2 points",
    ]
    assert [[child.tag for child in case] for case in cases] == tags
    for element in (root, root.find("testsuite")):
        assert int(element.get("failures")) == sum(kinds.count("failure") for kinds in tags)
        assert int(element.get("errors")) == sum(kinds.count("error") for kinds in tags)
        assert element.get("tests") == "2"
    for child in (child for case in cases for child in case):
        assert child.get("message").startswith(child.get("type").replace("-", " "))


def test_a_hostile_name_stays_text_in_junit():
    suite = ET.fromstring(junit_xml(compared(0), HOSTILE)).find("testsuite")
    assert suite.get("name").startswith('a|b <img src=x> & "q"')


def test_files_are_written_and_the_summary_is_appended(tmp_path):
    comparison = compared(12)
    summary = tmp_path / "new" / "summary.md"
    for _ in range(2):
        write_outputs(comparison, "net", junit=tmp_path / "j.xml", summary=summary, json=tmp_path / "c.json")
    assert (tmp_path / "j.xml").read_text(encoding="utf-8") == junit_xml(comparison, "net")
    assert summary.read_text(encoding="utf-8") == 2 * markdown_summary(comparison, "net")
    assert json.loads((tmp_path / "c.json").read_text()) == {"subject": "net", **comparison.as_dict()}


def test_nothing_is_written_unasked(tmp_path):
    write_outputs(compared(0), "net")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"cannot write .*: Is a directory; choose a writable file"):
        write_outputs(compared(0), "net", junit=tmp_path)


def test_the_job_summary_comes_from_the_environment():
    assert default_summary({"GITHUB_STEP_SUMMARY": "s.md"}) == Path("s.md")
    assert default_summary({}) is None
    assert default_summary({"GITHUB_STEP_SUMMARY": ""}) is None


def test_the_note_of_an_empty_gate_is_in_every_output():
    comparison = compared(0, robust=False)
    note = "float robust accuracy is 0.0 %, not above the allowed drop of 2 points"
    for output in ("\n".join(text_lines(comparison)), markdown_summary(comparison), junit_xml(comparison)):
        assert note in output
