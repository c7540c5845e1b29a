import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rctk.records import FILE_NAME, SCHEMA, Record, plain, read_records
from rctk_kernels.errors import OptionError, RecordError

APPEND = """
import sys
from pathlib import Path
from rctk.records import Record
for i in range(int(sys.argv[2])):
    Record.of("bench", {"name": "m" * 5000, "worker": sys.argv[3]}, {}, {"i": i}).append_to(Path(sys.argv[1]))
"""
APPEND_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from rctk.records import Record
from rctk_kernels.errors import RecordError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Record.of("bench", {"name": "m" * 5000}, {}, {}).append_to(Path(sys.argv[1]))
except RecordError as error:
    print(error)
"""


def bench(**values):
    return Record.of("bench", {"name": "digits"}, {"batch": 1}, values)


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = Record.of(
        "compare",
        {"name": "größe|<b>", "sha256": "ab"},
        {"eps": 8 / 255},
        {"difference": -0.01, "ok": True},
        machine={"cpu": "x"},
        versions={"numpy": "2"},
    )
    path = record.append_to(tmp_path / "runs" / "today")
    assert path == tmp_path / "runs" / "today" / FILE_NAME
    assert read_records(path) == [record]
    assert record.time.endswith("+00:00")


def test_records_are_appended_in_order_one_line_each(tmp_path):
    for i in range(3):
        path = bench(i=i).append_to(tmp_path)
    assert [json.loads(line)["values"]["i"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_a_folder_is_read_with_all_below_it(tmp_path):
    bench(i=1).append_to(tmp_path / "a")
    bench(i=2).append_to(tmp_path / "b" / "c")
    assert [record.values["i"] for record in read_records(tmp_path)] == [1, 2]


def test_numpy_values_and_paths_become_plain_json(tmp_path):
    values = {
        "count": np.int64(3),
        "share": np.float32(0.5),
        "ok": np.bool_(True),
        "times": np.array([[1.5, np.nan]]),
        "path": Path("a/b"),
        "pair": (1, np.inf),
        7: None,
    }
    (record,) = read_records(bench(**{str(k): v for k, v in values.items()}).append_to(tmp_path))
    assert record.values == {
        "count": 3,
        "share": 0.5,
        "ok": True,
        "times": [[1.5, None]],
        "path": "a/b",
        "pair": [1, None],
        "7": None,
    }


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(RecordError, match=r"values\.deep\.bad holds a set"):
        bench(deep={"bad": {1}})


def test_a_file_name_that_is_no_utf8_is_still_written(tmp_path):
    (record,) = read_records(bench(name="caf\udce9").append_to(tmp_path))
    assert record.values["name"] == "caf\\udce9"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_whatever_json_can_hold_survives(value):
    record = bench(value=value)
    assert Record.from_dict(json.loads(json.dumps(record.as_dict()))) == record


def test_a_half_line_of_a_crash_is_left_out_and_the_next_record_gets_its_own_line(tmp_path, caplog):
    path = bench(i=1).append_to(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"schema": 1, "kind": "ben')
    with caplog.at_level(logging.WARNING):
        assert [record.values["i"] for record in read_records(path)] == [1]
    assert caplog.messages == [f"{path} line 2 is not complete JSON and is left out"]
    bench(i=2).append_to(tmp_path)
    assert [record.values["i"] for record in read_records(path)] == [1, 2]


def test_processes_that_append_at_once_do_not_mix_lines(tmp_path):
    workers = [run(APPEND, tmp_path, 40, name) for name in "abc"]
    assert [worker.communicate()[0] for worker in workers] == ["", "", ""]
    records = read_records(tmp_path)
    for name in "abc":
        assert [r.values["i"] for r in records if r.subject["worker"] == name] == list(range(40))


def test_a_full_disk_leaves_no_half_line(tmp_path):
    path = bench(i=1).append_to(tmp_path)
    before = path.read_bytes()
    output, _ = run(APPEND_ON_A_FULL_DISK, tmp_path, len(before) + 1000).communicate()
    assert output == f"cannot write {path}: File too large; records need a writable folder with free space\n"
    assert path.read_bytes() == before


def test_a_device_without_space_is_named(tmp_path):
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    with pytest.raises(RecordError, match=r"cannot write .*: No space left on device; records need"):
        bench().append_to(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot write .*file/runs"):
        bench().append_to(tmp_path / "file" / "runs")


def test_a_missing_file_and_an_empty_folder_name_the_next_step(tmp_path):
    with pytest.raises(RecordError, match=r"cannot read .*: No such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match=r"no records\.jsonl in .*rctk bench"):
        read_records(tmp_path)


def test_a_newer_schema_asks_for_an_update(tmp_path):
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps(bench().as_dict() | {"schema": SCHEMA + 1}) + "\n")
    with pytest.raises(RecordError, match=r"line 1: written by a newer rctk \(schema 2, this one reads 1\); update"):
        read_records(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5", "schema, found None"),
        ('{"schema": true}', "schema, found True"),
        ('{"schema": 1, "kind": "guess"}', "unknown kind of record 'guess'"),
        ('{"schema": 1, "kind": "bench", "subject": []}', "object under 'subject'"),
    ],
)
def test_json_that_is_no_record_is_an_error_with_its_line(tmp_path, line, message):
    path = tmp_path / FILE_NAME
    path.write_text(f"\n{line}\n")
    with pytest.raises(RecordError, match=f"line 2: .*{message}"):
        read_records(path)


def test_unknown_fields_are_kept():
    values = bench().as_dict() | {"note": "by hand"}
    record = Record.from_dict(values)
    assert record.extra == {"note": "by hand"}
    assert record.as_dict() == values


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(OptionError, match="did you mean 'bench'"):
        Record.of("bensh", {}, {}, {})


def test_infinity_in_a_file_of_other_make_reads_as_not_defined(tmp_path):
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps(bench().as_dict()).replace('"batch": 1', '"batch": Infinity') + "\n")
    assert read_records(path)[0].settings == {"batch": None}


def test_plain_keeps_whole_numbers_whole():
    assert plain(np.arange(3), "x") == [0, 1, 2]
    assert all(isinstance(item, int) for item in plain(np.arange(3), "x"))
