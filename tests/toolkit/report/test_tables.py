import dataclasses
import io

import pytest
from rich.console import Console

from rctk.records import Record
from rctk.report import render_markdown, render_terminal
from rctk.report.tables import tables


def cells(records, title):
    (table,) = [table for table in tables(records) if table.title == title]
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows]


def printed(records, width=160):
    console = Console(file=io.StringIO(), width=width)
    render_terminal(records, console)
    return console.file.getvalue()


def test_each_kind_of_record_has_its_table_and_machines_come_last(records):
    titles = [table.title for table in tables(records)]
    assert titles == [
        "Float against deployed",
        "Attacks",
        "Latency, throughput and memory",
        "Exported files",
        "Training",
        "Machines and versions",
    ]


def test_a_comparison_has_a_row_per_gate_with_the_numbers_of_its_record(records):
    (record,) = [record for record in records if record.kind == "compare"]
    clean, robust = cells(records, "Float against deployed")
    gate = record.values["robust"]
    assert (clean["gate"], robust["gate"]) == ("clean", "robust")
    assert robust["float accuracy"].startswith(f"{gate['float_accuracy']:.1%}".replace("%", " % ["))
    assert robust["right alone, float : engine"] == f"{gate['float_only']} : {gate['engine_only']}"
    assert robust["verdict"] == gate["outcome"]
    assert (robust["images"], robust["budget"], robust["allowed drop, points"]) == ("1,000", "linf 8/255", "2.0")


def test_a_bench_has_its_unit_in_every_heading_or_cell(records):
    _, engine = cells(records, "Latency, throughput and memory")
    (record,) = [r for r in records if r.kind == "bench" and r.subject["role"] == "int8"]
    assert engine["median ms"] == f"{record.values['median_ms']:.3f}"
    assert (engine["size"], engine["peak memory"]) == ("283.2 KiB", "85.8 MiB")
    assert (engine["speed-up"], engine["calls"]) == ("2.90 x", "200")
    assert engine["model, file"] == "digits-cnn, int8 cpu"


def test_a_detail_that_no_record_holds_has_no_column(records):
    row = cells(records, "Attacks")[0]
    assert "queries" in row
    assert "mean linf" not in row


def test_an_export_has_a_row_per_file(records):
    assert [(row["file"], row["agrees, clean"], row["codes flipped"]) for row in cells(records, "Exported files")] == [
        ("float", "-", "-"),
        ("int8 cpu", "99.8 %", "0.07%"),
        ("int8 tensorrt", "99.8 %", "0.07%"),
    ]


def test_training_shows_its_last_epoch(records):
    (row,) = cells(records, "Training")
    assert (row["epochs"], row["clean"], row["robust"], row["objective"]) == ("2", "82.0 %", "42.0 %", "eps 0.15")


def test_machines_are_listed_once_and_named_in_every_row(many_records):
    machines = cells(many_records, "Machines and versions")
    assert [(row["machine"], row["CPU"]) for row in machines] == [("M1", "Example CPU 3000"), ("M2", "Another CPU")]
    assert "numpy 2.4.6" in machines[0]["versions"]
    labels = [row["machine"] for row in cells(many_records, "Float against deployed")]
    assert labels == ["M1"] * 48 + ["M2"] * 2


def test_load_and_free_memory_do_not_make_another_machine(records):
    busy = dataclasses.replace(records[0], machine={**records[0].machine, "load_average": [9, 9, 9]})
    assert len(cells([records[0], busy], "Machines and versions")) == 1


@pytest.mark.parametrize("kind", ["export", "train", "attack", "bench", "compare"])
@pytest.mark.parametrize("values", [{}, {"clean": 3, "files": "no", "epochs": [1], "median_ms": "x", "speedup": None}])
def test_a_record_with_missing_or_odd_values_still_has_its_row(kind, values):
    record = Record.of(kind, {}, {}, values)
    assert len(tables([record])[0].rows) == (2 if kind == "compare" else 1)
    assert printed([record])
    assert render_markdown([record])


def test_markdown_tables_have_equal_rows_whatever_a_name_holds(hostile_records):
    for section in render_markdown(hostile_records).split("## ")[1:]:
        rows = [line for line in section.splitlines() if line.startswith("|")]
        assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
        assert "<script" not in section
        assert "\x1b" not in section


def test_a_terminal_gets_no_markup_and_no_escape_codes_from_a_name(hostile_records):
    text = printed(hostile_records, width=400)
    assert "\x1b" not in text
    assert "[red]" in text


def test_a_narrow_terminal_keeps_words_whole_and_names_what_it_leaves_out(records):
    text = printed(records, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "no room for: budget; see the page, or widen the terminal" in text
    for word in ("digits-cnn", "onnxruntime", "verdict", "difference,"):
        assert word in text
    assert "no room for" not in printed(records, width=200)


def test_no_records_are_said_to_be_none():
    assert printed([]) == "no records yet\n"
    assert render_markdown([]) == "# rctk report\n\nno records yet\n"


def test_a_long_run_prints_every_comparison(many_records):
    assert printed(many_records).count("robust") >= 25
