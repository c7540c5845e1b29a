from __future__ import annotations

import json
import sys

import pytest

from rctk.measure.settings import BenchSettings
from rctk.measure.trtexec import bench_trtexec, failure, find_trtexec, parse_output, read_turn
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError

V10 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=m.plan
[08/19/2024-10:00:00] [I] === Trace details ===
[08/19/2024-10:00:00] [W] * Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be idle.
[08/19/2024-10:00:00] [I] === Performance summary ===
[08/19/2024-10:00:00] [I] Throughput: 3051.27 qps
[08/19/2024-10:00:00] [I] Latency: min = 0.31 ms, max = 0.55 ms, median = 0.32 ms, percentile(90%) = 0.35 ms
[08/19/2024-10:00:00] [I] GPU Compute Time: min = 0.27 ms, max = 0.5 ms, mean = 0.29 ms, median = 0.28 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=m.plan
"""
V11 = V10.replace("v100300", "v110400").replace("[08/19/2024-10:00:00] ", "[2026-03-01] ").replace("3051.27", "4000")
V8 = "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec\n[I] Throughput: 100 qps\n"

FAKE = """#!{python}
import json, sys
version, new = {version!r}, {new!r}
known = {known!r} + (["--includeDataTransfers"] if new else ["--noDataTransfers"])
flags = dict(flag.partition("=")[::2] for flag in sys.argv[1:])
if "--help" in flags:
    print("\\n".join(known)); sys.exit(0)
for flag in flags:
    if flag not in known:
        print("[01/01/2026-00:00:00] [E] Unknown option: " + flag); print("&&&& FAILED"); sys.exit(1)
with open({log!r}, "a") as log:
    log.write(json.dumps(flags) + "\\n")
if "--onnx" in flags:
    open(flags["--saveEngine"], "w").write(open(flags["--onnx"]).read()); sys.exit(0)
latency = float(open(flags["--loadEngine"]).read())
copies = 0.25 if ("--includeDataTransfers" in flags if new else "--noDataTransfers" not in flags) else 0.0
rows = [dict(startEnqMs=i, endEnqMs=i + 0.1, computeMs=latency - 0.25, latencyMs=latency - 0.25 + copies)
        for i in range(int(flags["--iterations"]))]
json.dump(rows, open(flags["--exportTimes"], "w"))
print({text!r})
"""
FLAGS = [
    "--onnx",
    "--saveEngine",
    "--loadEngine",
    "--stronglyTyped",
    "--skipInference",
    "--minShapes",
    "--optShapes",
    "--maxShapes",
    "--shapes",
    "--useCudaGraph",
    "--useSpinWait",
    "--separateProfileRun",
    "--infStreams",
    "--warmUp",
    "--duration",
    "--iterations",
    "--avgRuns",
    "--percentile",
    "--exportTimes",
    "--idleTime",
]


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """Put a program on the path that answers as trtexec 10 or 11 and knows the flags of that version only."""

    def make(text):
        path, log = tmp_path / "bin/trtexec", tmp_path / "log"
        path.parent.mkdir(exist_ok=True)
        values = {"python": sys.executable, "version": text[:60], "new": "v11" in text, "known": FLAGS}
        path.write_text(FAKE.format(**values, log=str(log), text=text))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))
        return log

    return make


def source(tmp_path, name, ms):
    (tmp_path / name).write_text(str(ms))
    return Source(path=tmp_path / name, input=InputSpec(channels=3, height=32, width=32))


@pytest.mark.parametrize(("text", "version", "speed"), [(V10, "10.3.0", 3051.27), (V11, "11.4.0", 4000.0)])
def test_two_files_in_turns_give_the_same_record_in_10_and_11(trtexec, tmp_path, text, version, speed):
    log = trtexec(text)
    files = [source(tmp_path, "float.onnx", 2.0), source(tmp_path, "int8.onnx", 0.5)]
    first, second = bench_trtexec(find_trtexec(), files, BenchSettings(batch=4, calls=10, rounds=5))
    assert (second["median_ms"], second["device_median_ms"], second["calls"]) == (0.5, 0.25, 10)  # copies included
    assert (second["speedup"], second["speedup_low"], second["speedup_high"]) == (4.0, 4.0, 4.0)
    assert (second["images_per_s"], second["trtexec_queries_per_s"]) == (8000.0, speed)
    assert (first["trtexec_version"], first["speedup"]) == (version, 1.0)
    assert not second["host_bound"]  # 0.1 ms to enqueue, 0.25 to compute
    flags = [json.loads(line) for line in log.read_text().splitlines()]
    assert [set(entry) & {"--onnx", "--loadEngine"} for entry in flags] == [{"--onnx"}] * 2 + [{"--loadEngine"}] * 10
    assert flags[0]["--optShapes"] == flags[2]["--shapes"] == "images:4x3x32x32"
    assert flags[2]["--loadEngine"] != flags[3]["--loadEngine"]
    assert flags[2]["--loadEngine"] == flags[4]["--loadEngine"]


def test_no_trtexec_is_a_named_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rctk.measure.trtexec.JETPACK", tmp_path / "absent")
    with pytest.raises(EngineUnavailableError, match=r"no trtexec on the PATH .* libnvinfer-bin"):
        find_trtexec()


def test_a_build_that_fails_is_one_line(trtexec, tmp_path, monkeypatch):
    trtexec(V10)
    monkeypatch.setattr("rctk.measure.trtexec.build_flags", lambda *_: ["--int8"])
    with pytest.raises(EngineError, match=r"^trtexec failed on m.onnx: Unknown option: --int8$"):
        bench_trtexec(find_trtexec(), [source(tmp_path, "m.onnx", 1.0)], BenchSettings())


def test_the_console_text_of_all_generations():
    assert parse_output(V8) == ("8.6.1", 100.0, ())
    assert parse_output(V10).warnings == (
        "Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be idle.",
    )
    assert parse_output(V11).version == "11.4.0"
    assert parse_output("Segmentation fault") == ("", None, ())


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"computeMs": 1}]', "[1]", '[{"latencyMs": 1', "null"])
def test_times_that_cannot_be_read_are_one_line(text):
    with pytest.raises(EngineError, match="trtexec wrote") as caught:
        read_turn(text, parse_output(""))
    assert "\n" not in str(caught.value)


def test_the_reason_of_a_failure():
    assert failure("[x] [E] first\n[x] [E] second\n&&&& FAILED", 1) == "first"
    assert failure("cannot open shared object file\n", 127) == "cannot open shared object file"
    assert failure("", 3) == "exit code 3"
