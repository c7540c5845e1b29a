import pytest

from rctk.records import Record
from rctk.report.page import html_page
from rctk.report.series import costs, latency_rows
from rctk.report.tables import tables
from rctk.report.terminal import columns_that_fit

JETSON = {"cpu": "Cortex-A78AE", "board": "NVIDIA Jetson Orin Nano", "os": "Ubuntu 22.04"}
HOST = {"cpu": "Example CPU 3000", "os": "Example Linux 12"}
TITLE = "Latency, throughput and memory"


def bench(median, machine=HOST, mode="", **settings):
    state = {"power_mode": mode}
    values = {"median_ms": median, "state_before": state, "state_after": state}
    subject = {"name": "net", "sha256": "ab", "role": "int8", "target": "tensorrt", "engine": "tensorrt"}
    settings = {"batch": 1, "threads": 1, "scenario": "single-stream", "streams": 1, "gap_ms": 0.0, **settings}
    return Record.of("bench", subject, settings, values, machine=machine)


def cells(records):
    (table,) = [table for table in tables(records) if table.title == TITLE]
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows]


def test_scenario_pause_and_power_mode_of_a_bench_are_shown():
    first, second = cells(
        [bench(2.0, JETSON, "15W (2)"), bench(3.0, JETSON, "MAXN (0)", scenario="offline", streams=2, gap_ms=33.0)]
    )
    assert (first["scenario"], first["pause, ms"], first["power mode"]) == ("single-stream", "-", "15W (2)")
    assert (second["scenario"], second["pause, ms"], second["power mode"]) == ("offline x 2", "33", "MAXN (0)")


def test_what_no_bench_has_takes_no_column():
    (row,) = cells([bench(2.0)])
    assert row["scenario"] == "single-stream"
    assert not {"pause, ms", "power mode"} & set(row)


def test_several_machines_are_told_apart_also_in_a_narrow_terminal():
    records = [bench(2.0), bench(3.0, JETSON)]
    (table,) = [table for table in tables(records) if table.title == TITLE]
    shown, _ = columns_that_fit(table, 80)
    assert table.headings[1] == "machine"
    assert 1 in shown
    assert [row[1] for row in table.rows] == ["M1", "M2"]
    alone = tables(records[:1])[0]
    assert "machine" not in [alone.headings[i] for i in columns_that_fit(alone, 400)[0]]


def test_plots_name_machine_mode_scenario_and_pause_where_they_differ():
    usual, odd = latency_rows([bench(2.0), bench(3.0, JETSON, "15W (2)", gap_ms=33.0)])
    assert usual.label == "net, int8 tensorrt, tensorrt, batch 1, threads 1, M1"
    assert odd.label == "net, int8 tensorrt, tensorrt, batch 1, threads 1, pause 33 ms, 15W (2), M2"


@pytest.fixture
def attacked():
    subject = {"name": "net", "sha256": "ab", "role": "int8", "target": "tensorrt", "engine": "tensorrt"}
    return Record.of("attack", subject, {"attack": "square"}, {"clean_accuracy": 0.9}, machine=HOST)


def test_a_cost_is_that_of_one_machine_in_one_scenario(attacked):
    records = [attacked, bench(2.0), bench(9.0, gap_ms=33.0), bench(8.0, scenario="offline"), bench(5.0, JETSON)]
    found = [(cost.file, cost.latency_ms) for cost in costs(records)]
    assert found == [("int8 tensorrt on M1", 2.0), ("int8 tensorrt on M2", 5.0)]
    assert [(cost.file, cost.latency_ms) for cost in costs(records[:4])] == [("int8 tensorrt", 2.0)]


def test_a_page_of_several_machines_can_be_drawn(attacked):
    page = html_page([attacked, bench(2.0), bench(3.0, JETSON, "15W (2)")])
    assert "NVIDIA Jetson Orin Nano" in page
    assert "int8 tensorrt on M2" in page
