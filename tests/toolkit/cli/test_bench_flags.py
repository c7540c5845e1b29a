"""Sweeps, scenarios and refusals of ``rctk bench``."""

from __future__ import annotations

import json
import sys

import pytest

QUICK = ("--engine", "onnxruntime", "--calls", "10", "--no-memory", "--no-float-beside", "--out", "runs")
FAKE = """#!{python}
import json, sys
flags = dict(flag.partition("=")[::2] for flag in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec")
if "--saveEngine" in flags:
    open(flags["--saveEngine"], "w").close()
if "--exportTimes" in flags:
    row = dict(startEnqMs=0, endEnqMs=0.1, computeMs=0.5, latencyMs=0.75)
    json.dump([row] * int(flags["--iterations"]), open(flags["--exportTimes"], "w"))
"""


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_a_sweep_leaves_a_record_for_every_pair(rctk, tmp_path, bundle):
    done = rctk("bench", bundle, *QUICK, "--batch", "1,4,1", "--threads", "1,2")
    assert done.code == 0, done.err
    pairs = [(r["settings"]["batch"], r["settings"]["threads"]) for r in records(tmp_path / "runs")]
    assert pairs == [(1, 1), (1, 2), (4, 1), (4, 2)]


def test_threads_that_the_engine_fixes_are_measured_once(rctk, tmp_path, bundle):
    done = rctk("bench", bundle, *QUICK[2:], "--engine", "onnxruntime:threads=1", "--threads", "1,2")
    assert done.code == 0, done.err
    assert len(records(tmp_path / "runs")) == 1


def test_scenario_pause_and_cold_start_stand_in_table_and_record(rctk, tmp_path, bundle):
    flags = ("--scenario", "multi-stream", "--streams", "2", "--gap-ms", "1.5", "--cold-starts", "1")
    done = rctk("bench", bundle, *QUICK, *flags)
    assert done.code == 0, done.err
    assert "multi-stream with 2 streams, 1.5 ms between calls" in done.out
    assert "cold start" in done.out
    (record,) = records(tmp_path / "runs")
    assert record["settings"]["streams"] == 2
    assert record["values"]["cold_total_ms"] > 0
    assert {"state_before", "state_after", "moved"} <= set(record["values"])


def test_trtexec_writes_the_same_kind_of_record(rctk, tmp_path, bundle, monkeypatch):
    program = tmp_path / "trtexec"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    done = rctk("bench", bundle, "--trtexec", "--calls", "10", "--out", "runs")
    assert done.code == 0, done.err
    assert "in trtexec 10.3.0, batch 1" in done.out
    first, second = records(tmp_path / "runs")
    assert (first["subject"]["role"], second["subject"]["role"]) == ("float", "int8")
    assert second["values"]["median_ms"] == 0.75
    assert second["versions"]["trtexec"] == "10.3.0"
    assert second["settings"]["batch"] == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--scenario", "multi-stream"), "--streams 2"),
        (("--streams", "3"), "--scenario multi-stream"),
        (("--threads", "1,x"), "'x' is not a whole number"),
        (("--batch", ""), "'' is not a whole number"),
        (("--gap-ms", "-3"), "gap_ms must be 0 or more"),
        (("--trtexec", "--energy"), "trtexec"),
    ],
)
def test_what_makes_no_sense_is_one_line(rctk, tmp_path, bundle, flags, words):
    done = rctk("bench", bundle, "--out", "runs", *flags)
    assert done.code == 2
    assert words in done.refusal
    assert not (tmp_path / "runs").exists()
