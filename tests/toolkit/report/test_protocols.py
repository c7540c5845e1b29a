"""Protocols in a report: the plot of tiers, the tables, and verdicts that an audit overruled."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from rctk.evaluation.protocol import TIERS
from rctk.records import Record
from rctk.report.page import html_page
from rctk.report.plot_tiers import PARTS, tier_plot
from rctk.report.protocols import all_tables, protocoled

COUNTS = {"survived": 40, "differential": 1, "decision": 2, "score": 3, "substitute": 0, "transfer-twin": 14}
COUNTS |= {"transfer-float": 30, "misclassified": 10}


def values(*, believed=True, counts=COUNTS):
    left, rows = 100 - counts["misclassified"], []
    for tier in TIERS:
        left -= counts[tier]
        share = {"hits": left, "samples": 100, "low": left / 100 - 0.05, "high": left / 100 + 0.05}
        cost = {"seconds": 1.5, "queries": 10, "forward_passes": 20, "backward_passes": 20}
        rows.append({"tier": tier, "ran": tier != "substitute", "broken": counts[tier], "left": share, **cost})
    checks = [{"check": "gradients.zero", "verdict": "fails", "found": "90 % are zero"}]
    audit = {"verdict": "pass" if believed else "fails", "checks": [] if believed else checks}
    union = {"evasive": {"hits": 9, "samples": 90, "low": 0.05, "high": 0.18}}
    ways = [{"fooled": "engine", "unaware": "float", "union": union}]
    verdict = "engine: robust accuracy at most 40.0%" if believed else "engine: 40.0% is not to be believed"
    return {
        "name": "quick",
        "verdict": verdict,
        "believed": believed,
        "counts": counts,
        "tiers": rows,
        "audit": audit,
        "differential": {"directions": ways},
    }


@pytest.fixture
def attacked(records):
    def make(**kinds):
        record = next(r for r in records if r.kind == "attack" and r.subject["engine"] == "onnxruntime")
        return replace(record, values={**record.values, "protocol": values(**kinds)})

    return make


@pytest.fixture
def compared(records):
    record = next(r for r in records if r.kind == "compare")
    own = {"float": values(), "engine": values(believed=False)}
    return replace(record, values={**record.values, "protocol": own, "disbelief": "masking audit: engine fails"})


def test_every_outcome_has_a_part_of_the_bar():
    assert set(PARTS) == {*TIERS, "survived", "misclassified"}
    assert list(PARTS)[1:-1] == list(TIERS)[::-1]


def test_the_plot_is_there_for_protocols_only(records, attacked):
    assert tier_plot(records) is None
    plot = tier_plot([*records, attacked()])
    assert plot is not None
    assert ET.fromstring(plot.svg).tag.endswith("svg")
    assert tier_plot([attacked()]).svg == tier_plot([attacked()]).svg
    assert tier_plot([attacked()]).svg != tier_plot([attacked(believed=False)]).svg


def test_tables_say_what_was_left_after_each_tier(attacked):
    tables = {table.title: table for table in all_tables([attacked()])}
    tiers = tables["Deployed protocol, tier by tier"]
    assert [(row[1], row[3], row[4]) for row in tiers.rows] == [
        ("transfer-float", "30", "60.0 % [55.0, 65.0]"),
        ("transfer-twin", "14", "46.0 % [41.0, 51.0]"),
        ("substitute", "not run", "-"),
        ("score", "3", "43.0 % [38.0, 48.0]"),
        ("decision", "2", "41.0 % [36.0, 46.0]"),
        ("differential", "1", "40.0 % [35.0, 45.0]"),
    ]
    assert list(tables)[-1] == "Machines and versions"
    (verdict,) = tables["Deployed protocol, verdicts"].rows
    assert verdict[1] == "engine: robust accuracy at most 40.0%"
    assert verdict[4] == "engine wrong, float right 10.0 %"


def test_a_comparison_shows_both_forms_and_why_nothing_holds(compared):
    forms = protocoled([compared])
    assert [form.model.rpartition(", ")[2] for form in forms] == ["float", "engine"]
    page = html_page([compared])
    assert "masking audit: engine fails" in page
    assert "engine: 40.0% is not to be believed" in page
    assert "gradients.zero fails: 90 % are zero" in page
    assert "What broke the images" in page


@pytest.mark.parametrize("damaged", ["text", ["a"], {"engine": 3}, {"tiers": [1], "counts": {"survived": "x"}}])
def test_damaged_protocols_do_not_stop_a_report(records, damaged):
    record = next(r for r in records if r.kind == "attack")
    broken = Record.from_dict({**record.as_dict(), "values": {**record.values, "protocol": damaged}})
    assert "rctk report" in html_page([broken])
