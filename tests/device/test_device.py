from __future__ import annotations

import json

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


def test_gradient_attacks_say_what_they_need(rctk, data):
    code, _, error = rctk("attack", data / "bundle", "--attack", "apgd-ce", "--data", data / "digits.npz")
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    assert "square" in error or "pip install" in error


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


def test_help_imports_no_numpy(tmp_path):
    import subprocess
    import sys

    text = (
        "import sys; from rctk.cli.main import run; code = run(['--help']); "
        "heavy = {'numpy', 'torch', 'onnxruntime', 'onnx'} & set(sys.modules); sys.exit(f'{heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "compare" in done.stdout
