import dataclasses

import pytest

from rctk.report.series import accuracy_rows, costs, latency_rows


def of_kind(records, kind):
    return [record for record in records if record.kind == kind]


def test_a_comparison_gives_both_sides_clean_and_robust(records):
    (record,) = of_kind(records, "compare")
    (row,) = accuracy_rows([record])
    assert [(a.side, a.robust) for a in row.accuracies] == [
        ("float", False),
        ("engine", False),
        ("float", True),
        ("engine", True),
    ]
    assert row.accuracies[3].value == record.values["robust"]["engine_accuracy"]
    assert row.accuracies[3].low == record.values["robust"]["engine_low"]


def test_an_attack_is_of_the_side_it_was_measured_on(records):
    rows = accuracy_rows(of_kind(records, "attack"))
    assert [row.accuracies[0].side for row in rows] == ["float", "twin", "engine"]
    assert rows[0].label == "digits-cnn, float, onnxruntime, apgd-ce + square:queries=500, linf 8/255"


def test_latencies_are_those_of_the_record(records):
    bench = of_kind(records, "bench")
    rows = latency_rows(records)
    assert [row.side for row in rows] == ["float", "engine"]
    assert rows[1].percentiles["p99_ms"] == bench[1].values["p99_ms"]
    assert rows[1].times_ms == tuple(bench[1].values["times_ms"])


def test_a_cost_joins_size_latency_and_accuracy_of_the_same_file(records):
    (compare,), bench = of_kind(records, "compare"), of_kind(records, "bench")
    float_, engine = costs(records)
    assert (float_.file, engine.file) == ("float", "int8 cpu")
    assert (float_.size_bytes, engine.size_bytes) == (1_100_000, 290_000)
    assert [c.latency_ms for c in (float_, engine)] == [r.values["median_ms"] for r in bench]
    assert engine.clean == compare.values["clean"]["engine_accuracy"]
    assert engine.robust == compare.values["robust"]["engine_accuracy"]


def test_the_latency_of_the_smallest_batch_counts_and_the_newest_of_equals(records):
    compare, (_, engine) = of_kind(records, "compare"), of_kind(records, "bench")

    def at(batch, median):
        values = {**engine.values, "median_ms": median}
        return dataclasses.replace(engine, settings={**engine.settings, "batch": batch}, values=values)

    for order in ([at(1, 2.0), at(1, 3.0), at(32, 9.0)], [at(32, 9.0), at(1, 2.0), at(1, 3.0)]):
        assert [cost.latency_ms for cost in costs([*compare, *order])] == [3.0]


def test_a_size_comes_from_the_export_where_nothing_was_timed(records):
    kept = of_kind(records, "compare") + of_kind(records, "export")
    assert [(c.size_bytes, c.latency_ms) for c in costs(kept)] == [(1_100_000, None), (290_000, None)]


@pytest.mark.parametrize("kind", ["compare", "bench", "export"])
def test_nothing_is_joined_that_no_record_holds(records, kind):
    assert costs(of_kind(records, kind)) == []


def test_files_of_other_bundles_are_not_mixed_up(records):
    compare, bench = of_kind(records, "compare"), of_kind(records, "bench")
    others = [dataclasses.replace(r, subject={**r.subject, "sha256": "other"}) for r in bench]
    assert costs([*compare, *others]) == []
