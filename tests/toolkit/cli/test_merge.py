import dataclasses

from rctk.records import FILE_NAME, Record, read_records


def runs(folder, cpu, *times):
    for time in times:
        record = Record.of("bench", {"name": "net"}, {"batch": 1}, {"median_ms": 1.0}, machine={"cpu": cpu})
        dataclasses.replace(record, time=f"2026-01-0{time}T00:00:00+00:00").append_to(folder)


def test_records_copied_back_from_a_device_are_merged(rctk, tmp_path):
    runs(tmp_path / "runs", "host", 1, 3)
    runs(tmp_path / "jetson", "device", 2)
    done = rctk("merge", "runs", "jetson", "jetson", "--out", "all")
    assert done.code == 0, done.err
    assert "records: 3, left out as repeated: 1, machines: 2" in done.out
    assert [record.machine["cpu"] for record in read_records(tmp_path / "all")] == ["host", "device", "host"]
    assert "name a new folder" in rctk("merge", "runs", "--out", "all").refusal


def test_a_broken_line_is_refused_and_nothing_is_written(rctk, tmp_path):
    runs(tmp_path / "runs", "host", 1)
    with (tmp_path / "runs" / FILE_NAME).open("a") as file:
        file.write('{"half\n')
    refusal = rctk("merge", "runs", "--out", "all").refusal
    assert f"runs/{FILE_NAME} line 2 is not complete JSON" in refusal
    assert not (tmp_path / "all").exists()


def test_nonsense_is_refused(rctk, tmp_path):
    runs(tmp_path / "runs", "host", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").touch()
    assert "no records.jsonl in empty" in rctk("merge", "runs", "empty", "--out", "all").refusal
    assert "no record in blank.jsonl" in rctk("merge", "blank.jsonl", "--out", "all").refusal
    assert "cannot read nowhere" in rctk("merge", "nowhere", "--out", "all").refusal
    assert "PATHS is missing" in rctk("merge", "--out", "all").refusal
    assert "--out is missing" in rctk("merge", "runs").refusal
    assert "is a file" in rctk("merge", "runs", "--out", "blank.jsonl/x").refusal


def test_a_report_of_several_folders_names_the_machine_of_each_row(rctk, tmp_path):
    runs(tmp_path / "runs", "host", 1)
    runs(tmp_path / "jetson", "device", 2)
    done = rctk("report", "runs", "jetson", "--markdown", "all.md")
    assert done.code == 0, done.err
    assert (tmp_path / "runs" / "report.html").is_file()
    rows = [line for line in (tmp_path / "all.md").read_text().splitlines() if line.startswith("| net")]
    assert ["| M1 |" in rows[0], "| M2 |" in rows[1]] == [True, True]
