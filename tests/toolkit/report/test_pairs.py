"""Transfer matrices, differential searches and curves in the report."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.records import Record
from rctk.report.page import html_page
from rctk.report.plot_curve import curve_plots, lines
from rctk.report.plot_transfer import matrices, transfer_plot
from rctk.report.tables import tables

SUBJECT = {"name": "net", "sha256": "ab", "role": "int8", "target": "cpu", "engine": "onnxruntime"}
SETTINGS = {"norm": "linf", "eps": 8 / 255, "attack": "apgd-ce", "data": "noise", "seed": 0}


def cell(source, target, hits):
    return {"source": source, "target": target, "hits": hits, "samples": 40, "low": 0.1, "high": 0.9}


@pytest.fixture
def transfer():
    rate = {"source": "float", "target": "engine", "rate": 0.5, "interval": [0.3, 0.7], "examples": 20, "fooled": 10}
    robust = [cell("float", "float", 10), cell("float", "engine", 30), cell("engine", "float", 20)]
    return Record.of("transfer", SUBJECT, SETTINGS, {"samples": 50, "robust": robust, "transfer": [rate]})


@pytest.fixture
def curve():
    def make(over, key, at):
        points = [{key: x, "accuracy": y, "low": y - 0.1, "high": y + 0.1} for x, y in at]
        return Record.of("curve", SUBJECT, SETTINGS, {"samples": 50, "over": over, "points": points})

    return [
        make("eps", "eps", [(0.0, 0.9), (4 / 255, 0.5)]),
        make("queries", "queries", [(0, 0.9), (10, 0.6), (40, 0.3)]),
    ]


def test_the_matrix_holds_what_candidates_break(transfer):
    (found,) = matrices([transfer])
    assert (found.sources, found.targets) == (("float", "engine"), ("float", "engine"))
    assert found.broken[:, 0].tolist() == [0.75, 0.5]
    assert found.broken[0, 1] == 0.25
    assert np.isnan(found.broken[1, 1])


def test_the_table_has_a_row_per_cell_with_its_rate(transfer):
    table = tables([transfer])[0]
    assert table.title == "Transfer"
    assert table.rows[1][1:6] == ("float", "engine", "40", "75.0 % [10.0, 90.0]", "50.0 % [30.0, 70.0]")
    assert table.rows[0][5] == "-"


def test_differential_rows_name_both_ways():
    share = {"hits": 5, "samples": 50, "low": 0.04, "high": 0.21}
    search = {"success": share, "evasive": share, "evasion": share}
    ways = [
        {"fooled": fooled, "unaware": other, "searches": {"diva": search}, "union": search}
        for fooled, other in (("engine", "float"), ("float", "engine"))
    ]
    record = Record.of("differential", SUBJECT, SETTINGS, {"samples": 60, "directions": ways})
    rows = tables([record])[0].rows
    assert [row[1:4] for row in rows] == [
        ("engine", "float", "diva"),
        ("engine", "float", "all of them"),
        ("float", "engine", "diva"),
        ("float", "engine", "all of them"),
    ]
    assert rows[0][4] == "10.0 % [4.0, 21.0]"


def test_curves_keep_their_points(curve):
    (over_eps,) = lines(curve, "eps")
    assert over_eps.x == pytest.approx([0, 4 / 255])
    assert over_eps.value == [0.9, 0.5]
    (over_queries,) = lines(curve, "queries")
    assert over_queries.x == [0, 10, 40]
    rows = tables(curve)[0].rows
    assert "90.0 % [80.0, 100.0]" in rows[0]
    assert "50.0 % [40.0, 60.0]" in rows[1]


def test_the_page_shows_both_and_strange_records_leave_them_out(transfer, curve):
    page = html_page([transfer, *curve])
    for title in ("Transfer of adversarial images", "Robust accuracy over the budget", "Robust accuracy over queries"):
        assert title in page
    odd = [
        Record.of("transfer", SUBJECT, SETTINGS, {"robust": "none"}),
        Record.of("curve", SUBJECT, SETTINGS, {"over": "eps", "points": [3]}),
        Record.of("differential", SUBJECT, SETTINGS, {"directions": [None]}),
    ]
    assert transfer_plot(odd) is None
    assert curve_plots(odd) == []
    assert html_page(odd)
