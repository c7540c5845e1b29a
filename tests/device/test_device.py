from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the device tests run one engine, ONNX Runtime")


def records(folder):
    return [json.loads(line) for line in (folder / "runs" / "records.jsonl").read_text().splitlines()]


def test_doctor_runs_and_says_what_is_missing(rctk):
    code, out, _ = rctk("doctor")
    assert code == 0
    assert "engine onnxruntime" in out


def test_bench_measures_float_and_int8(rctk, data, tmp_path):
    code, out, error = rctk("bench", data / "bundle", "--calls", 50)
    assert code == 0, error
    assert "fastest engine: onnxruntime" in out
    assert [record["subject"]["role"] for record in records(tmp_path)] == ["float", "int8"]
    assert all(record["values"]["median_ms"] > 0 for record in records(tmp_path))


def test_bench_of_a_bare_file_leaves_out_what_is_not_installed(rctk, data):
    code, out, error = rctk("bench", data / "bundle" / "float.onnx", "--input", "1x8x8", "--calls", 20, "--no-memory")
    assert code == 0, error
    assert "fastest engine: onnxruntime" in out


def test_square_attacks_the_engine(rctk, data, tmp_path):
    code, _, error = rctk(
        "attack", data / "bundle", "--attack", "square:queries=100", "--eps", "0.2", "--data", data / "digits.npz"
    )
    assert code == 0, error
    (record,) = records(tmp_path)
    values = record["values"]
    assert values["samples"] == 200
    assert values["clean_accuracy"] > 0.9
    assert values["robust_accuracy"] < values["clean_accuracy"] - 0.2


def test_compare_gates_with_query_attacks(rctk, data):
    code, out, error = rctk(
        "compare", data / "bundle", "--attack", "square:queries=50", "--max-drop", 0.1, "--data", data / "digits.npz"
    )
    assert code == 0, error
    assert "holds" in out


@pytest.mark.parametrize(
    "given", [(), ("--attack", "apgd-ce"), ("--attack", "square", "--attack", "pgd:steps=5"), ("--protocol", "quick")]
)
def test_gradient_attacks_say_what_they_need_and_what_goes_without(rctk, data, given):
    code, _, error = rctk("attack", data / "bundle", *given, "--data", data / "digits.npz")
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    assert "needs the package torch" in error
    assert "--attack square" in error
    assert "pip install 'rctk[host]'" in error


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "BUNDLE"), ("export", "x.pt", "--calibration", "digits:train"), ("train", "--arch", "mlp")],
)
def test_host_commands_name_the_install_line(rctk, data, arguments):
    code, _, error = rctk(*(data / "bundle" if a == "BUNDLE" else a for a in arguments))
    assert code == 2
    assert "pip install 'rctk[host]'" in error


@pytest.mark.parametrize("family", ["attacks", "engines", "data"])
def test_list_works(rctk, family):
    code, out, error = rctk("list", family)
    assert code == 0, error
    assert family in out


def test_replay_judges_what_a_workstation_crafted(rctk, data, tmp_path):
    code, out, error = rctk("replay", data / "candidates.npz", data / "bundle")
    assert code == 0, error
    (record,) = records(tmp_path)
    assert record["settings"]["made"]["engine"] == "onnxruntime"
    assert [(each["name"], each["common"]) for each in record["values"]["replay"]] == [("float", 58), ("engine", 58)]
    assert record["values"]["robust_accuracy"] == pytest.approx(0.5, abs=0.05)  # 30 of 60 in the ONNX Runtime there
    assert "note: the candidates were made for another file" not in out


def test_a_candidate_file_that_was_cut_short_is_refused(rctk, data, tmp_path):
    cut = tmp_path / "candidates.npz"
    cut.write_bytes((data / "candidates.npz").read_bytes()[:-2000])
    code, _, error = rctk("replay", cut, data / "bundle")
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert str(cut) in error


def test_a_served_engine_answers_the_remote_engine_as_it_does_in_process(rctk, start, data, tmp_path):
    server = start("serve", data / "bundle", "--port", 0)
    address = server.stdout.readline().removeprefix("serving ").strip()
    attack = ("--attack", "square:queries=20", "--eps", "0.2", "--data", data / "digits.npz", "--samples", 50)
    for path, *more in ((data / "bundle",), (address, "--input", "1x8x8")):
        code, _, error = rctk("attack", path, *more, *attack)
        assert code == 0, error
    here, there = (record["values"] for record in records(tmp_path))
    assert (here["samples"], here["clean_accuracy"]) == (50, there["clean_accuracy"])
    assert (here["robust_accuracy"], here["queries"]) == (there["robust_accuracy"], there["queries"])
    assert here["robust_accuracy"] < here["clean_accuracy"]
    server.terminate()
    assert server.wait(timeout=30) == 143


QUERIES = ("--attack", "square", "--data", "DIGITS")
WRONG = {
    "no such bundle": (("bench", "nothing"), "nothing"),
    "an engine that is not here": (("bench", "BUNDLE", "--engine", "tensorrt"), "tensorrt"),
    "a target that the bundle lacks": (("bench", "BUNDLE", "--target", "tensorrt"), "cpu"),
    "a word for a number": (("bench", "BUNDLE", "--calls", "many"), "--calls"),
    "no data": (("attack", "BUNDLE", "--attack", "square", "--data", "cifar10:test"), "RCTK_DATA"),
    "an unknown attack": (("attack", "BUNDLE", "--attack", "squares", "--data", "DIGITS"), "square"),
    "another shape": (("bench", "BUNDLE/int8-cpu.onnx", "--input", "3x32x32"), "1, 8, 8"),
    "a name that no address can hold": (("serve", "BUNDLE", "--name", "a b/c", "--port", 0), "--name a-b-c"),
    "nobody answers": (("attack", "http://127.0.0.1:9/m", "--input", "1x8x8", *QUERIES), "127.0.0.1:9"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_with_the_next_step(rctk, data, tmp_path, case):
    arguments, word = WRONG[case]
    places = {"BUNDLE": str(data / "bundle"), "DIGITS": str(data / "digits.npz")}
    code, _, error = rctk(*(re.sub("BUNDLE|DIGITS", lambda name: places[name[0]], str(part)) for part in arguments))
    assert code == 2, error
    assert len(error.strip().splitlines()) == 1
    assert word in error
    assert not (tmp_path / "runs" / "records.jsonl").exists()


def test_the_wheel_is_what_runs_and_torch_is_not_there(device_python):
    text = "import importlib.util as u, sys, rctk; print(rctk.__file__, u.find_spec('torch'), sys.version_info[:2])"
    found = subprocess.run([device_python, "-I", "-c", text], capture_output=True, text=True, check=True).stdout
    assert "site-packages" in found
    assert " None (3, 1" in found


def test_everything_below_the_device_line_can_be_imported(device_python):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    contract = project.partition("the device line")[2].partition("source_modules = [")[2].partition("]")[0]
    modules = re.findall(r'"([\w.]+)"', contract)
    assert len(modules) > 40
    text = """
import importlib, sys
from rctk_kernels.errors import EngineUnavailableError
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except EngineUnavailableError as error:  # TensorRT itself
        print(error)
"""
    done = subprocess.run([device_python, "-I", "-c", text, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_numpy(device_python, tmp_path):
    text = (
        "import sys; from rctk.cli.main import run; code = run(['--help']); "
        "heavy = {'numpy', 'torch', 'onnxruntime', 'onnx'} & set(sys.modules); sys.exit(f'{heavy}' if heavy else code)"
    )
    done = subprocess.run([device_python, "-c", text], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "compare" in done.stdout
