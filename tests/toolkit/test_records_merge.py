import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rctk.records import FILE_NAME, Record, read_records
from rctk.records_merge import merge, moment, write_merged
from rctk_kernels.errors import RecordError


def bench(i, time, cpu="A"):
    record = Record.of("bench", {"name": "m"}, {}, {"i": i}, machine={"cpu": cpu})
    return dataclasses.replace(record, time=time)


def folder_of(path, *records):
    for record in records:
        record.append_to(path)
    return path


def numbers(records):
    return [record.values["i"] for record in records]


def test_records_of_two_machines_come_in_order_of_time_whatever_their_zone(tmp_path):
    here = folder_of(tmp_path / "a", bench(1, "2026-01-01T10:00:00+00:00"), bench(4, "2026-01-01T13:00:00+00:00"))
    there = folder_of(tmp_path / "b", bench(3, "2026-01-01T13:30:00+01:00"), bench(2, "2026-01-01T11:00:00Z"))
    assert numbers(merge([here, there]).records) == [1, 2, 3, 4]  # 13:30+01:00 is 12:30 UTC


def test_records_of_the_same_second_keep_the_order_of_the_sources(tmp_path):
    time = "2026-01-01T10:00:00+00:00"
    here = folder_of(tmp_path / "a", bench(2, time), bench(1, time))
    there = folder_of(tmp_path / "b", bench(0, time))
    assert numbers(merge([here, there]).records) == [2, 1, 0]
    assert numbers(merge([there, here]).records) == [0, 2, 1]


def test_a_folder_copied_back_twice_counts_once_and_the_order_of_keys_does_not_matter(tmp_path):
    first, second = bench(1, "2026-01-01T10:00:00+00:00"), bench(2, "2026-01-01T10:00:01+00:00")
    here = folder_of(tmp_path / "a", first, second)
    there = tmp_path / "b" / FILE_NAME
    there.parent.mkdir()
    there.write_text(json.dumps(dict(reversed(first.as_dict().items()))) + "\n")
    merged = merge([here, there, here])
    assert (numbers(merged.records), merged.found, merged.repeated) == ([1, 2], (2, 1, 2), 3)


def test_equal_values_of_two_machines_are_two_records(tmp_path):
    time = "2026-01-01T10:00:00+00:00"
    assert len(merge([folder_of(tmp_path, bench(1, time), bench(1, time, cpu="B"))]).records) == 2


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8))
def test_merging_what_was_merged_changes_nothing(tmp_path_factory, here, there):
    base = tmp_path_factory.mktemp("records")
    sources = []
    for name, seconds in (("a", here), ("b", there)):
        sources.append(base / name)
        sources[-1].mkdir()
        (sources[-1] / FILE_NAME).touch()
        folder_of(sources[-1], *(bench(second, f"2026-01-01T10:00:0{second}+00:00") for second in seconds))
    once = merge(sources)
    assert numbers(once.records) == sorted({*here, *there})
    write_merged(once, base / "c")
    assert merge([base / "c", *sources]).records == once.records == read_records(base / "c")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "bench", "sub', "line 2 is not complete JSON; remove that line"),
        ("[1, 2]", "line 2: a record needs a whole number as its schema"),
        (json.dumps(bench(1, "noon").as_dict()), "line 2: 'noon' is no time"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path, line, message):
    folder_of(tmp_path, bench(1, "2026-01-01T10:00:00Z"))
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError, match=message):
        merge([tmp_path], strict=True)


def test_a_report_still_reads_around_half_lines_and_records_without_a_time(tmp_path, caplog):
    folder_of(tmp_path, bench(1, "2026-01-01T10:00:00Z"), bench(0, "noon"))
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"half')
    assert numbers(merge([tmp_path]).records) == [0, 1]
    assert "line 3 is not complete JSON" in caplog.text


def test_records_that_stand_there_are_not_replaced(tmp_path):
    there = folder_of(tmp_path, bench(1, "2026-01-01T10:00:00Z"))
    with pytest.raises(RecordError, match="exists already; name a new folder"):
        write_merged(merge([there]), there)
    assert numbers(read_records(there)) == [1]


def test_times_without_a_zone_are_utc_and_fractions_are_read():
    assert moment("2026-01-01T10:00:00") == moment("2026-01-01T10:00:00.000000+00:00")
    assert moment("") is None
