from __future__ import annotations

from rctk.records import Record
from rctk.report.study_table import study_tables
from rctk.study.summary import rows_of

LABELS = {"model": "m", "method": "ptq", "target": "cpu", "engine": "onnxruntime", "attack": "fgsm"}


def attacked(seed, form, robust, **more):
    role = "float" if form == "float" else "int8"
    values = {"samples": 10, "clean_accuracy": 0.9, "clean_low": 0.6, "clean_high": 1.0}
    values |= {"robust_accuracy": robust, "robust_low": 0.1, "robust_high": 0.5}
    labels = {"kind": "attack", **LABELS, "seed": seed, **more}
    return Record(
        kind="attack", subject={"role": role, "engine": form}, settings={}, values=values, extra={"study": labels}
    )


def test_one_seed_keeps_its_interval_and_several_have_mean_and_deviation():
    (one,) = rows_of([attacked(0, "onnxruntime", 0.2)])
    assert one.robust["engine"] == (0.2, 0.1, 0.5, None, 1)
    (two,) = rows_of([attacked(seed, "onnxruntime", robust) for seed, robust in enumerate((0.25, 0.5))])
    share = two.robust["engine"]
    # the mean of 1/4 and 1/2 is 3/8; each lies 1/8 from it, so the deviation with n - 1 is sqrt(2 / 64)
    assert (share.value, share.low, share.runs) == (0.375, None, 2)
    assert abs(share.deviation - (2 / 64) ** 0.5) < 1e-12


def test_forms_share_a_row_and_methods_do_not():
    records = [attacked(0, form, 0.2) for form in ("float", "twin", "onnxruntime")]
    rows = rows_of([*records, attacked(0, "onnxruntime", 0.3, method="qat")])
    assert [(row.place[1], sorted(row.robust)) for row in rows] == [
        ("ptq", ["engine", "float", "twin"]),
        ("qat", ["engine"]),
    ]


def test_size_is_that_of_the_file_that_was_attacked_and_time_that_of_the_engine():
    files = [{"role": "int8", "target": name, "size_bytes": size} for name, size in (("cpu", 2048), ("tensorrt", 1))]
    exported = Record(
        kind="export",
        subject={},
        settings={},
        values={"files": files},
        extra={"study": {"kind": "export", "model": "m", "method": "ptq", "seed": 0}},
    )
    timed = [
        Record(
            kind="bench",
            subject={"role": role},
            settings={"batch": 1, "threads": 1},
            values={"median_ms": ms},
            extra={"study": {**LABELS, "attack": "", "kind": "bench", "seed": 0}},
        )
        for role, ms in (("float", 9.0), ("int8", 0.5))
    ]
    (row,) = rows_of([exported, attacked(0, "onnxruntime", 0.2), *timed])
    assert (row.size_bytes, row.median_ms) == (2048, 0.5)
    (table,) = study_tables([exported, attacked(0, "onnxruntime", 0.2), *timed])
    cells = dict(zip(table.headings, table.rows[0], strict=True))
    assert (cells["size"], cells["median ms"]) == ("2.0 KiB", "0.500")
    assert cells["robust engine"] == "20.0 % [10.0, 50.0]"
    assert "robust float" not in cells  # a column that nothing fills is left out


def test_records_of_no_study_make_no_table():
    assert study_tables([Record(kind="attack", subject={}, settings={}, values={})]) == []
