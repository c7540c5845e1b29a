"""The way of a model through the commands, as a user walks it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest

FEW = ("--calibration-samples", "64", "--check-samples", "32")
SQUARE = ("--attack", "square:queries=20")


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_from_training_to_the_report(rctk, tmp_path):
    train = ("train", "--arch", "mlp", "--data", "digits:train", "--epochs", "4", "-o", "models/mlp.pt")
    done = rctk(*train, "--objective", "train.pgd_at:eps=0.05,steps=2")
    assert done.code == 0, done.err
    assert re.search(r"^epoch 4/4 .* under PGD", done.err, re.MULTILINE)
    assert done.out.startswith("best epoch ")

    done = rctk("export", "--int8", "models/mlp.pt", "--calibration", "digits:train", *FEW)
    assert done.code == 0, done.err
    assert "int8-tensorrt.onnx" in done.out
    assert "calibrate: 64 of 64 done in" in done.err
    assert "next: rctk compare models/mlp-int8" in done.out

    done = rctk("inspect", "models/mlp-int8")
    assert "keeps every rule of target tensorrt" in done.out
    described = json.loads(rctk("inspect", "models/mlp-int8", "--json").out)
    assert [file["target"] for file in described["files"]] == ["", "cpu", "tensorrt", "cpu-mirror"]

    forms = ("--on", "float", "--on", "twin", "--on", "engine")
    attacks = ("--attack", "pgd:steps=5", *SQUARE)
    done = rctk("attack", "models/mlp-int8", "--data", "digits:test", "--samples", "40", *forms, *attacks)
    assert done.code == 0, done.err
    assert "digits:test, linf eps 8/255" in done.out
    summary = done.out.partition("worst case per image")[2].partition("images that broke")[0]
    assert [len(re.findall(rf"^{form} ", summary, re.MULTILINE)) for form in forms[1::2]] == [1, 1, 1]

    done = rctk("bench", "models/mlp-int8", "--calls", "20", "--no-memory")
    assert done.code == 0, done.err
    assert "fastest engine: onnxruntime" in done.out
    (left_out,) = [line for line in done.err.splitlines() if "left out" in line]
    assert left_out.endswith("; --engine NAME says why")
    assert "onnxruntime-cuda, " in left_out

    done = rctk("compare", "models/mlp-int8", "--data", "digits:test", "--max-drop", "1/10", *SQUARE)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("holds (360 samples")

    kinds = [record["kind"] for record in records(tmp_path / "runs")]
    assert kinds == ["train", "export", "attack", "attack", "attack", "bench", "bench", "compare"]
    done = rctk("report", "runs", "--markdown", "runs/report.md")
    assert done.code == 0, done.err
    assert "Float against deployed" in done.out
    assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000
    assert "# " in (tmp_path / "runs" / "report.md").read_text()


def test_the_gate_says_what_it_found_with_its_exit_code_and_in_files(rctk, tmp_path, bundle, digits):
    files = ("--junit", "ci/gate.xml", "--json", "ci/gate.json", "--summary", "ci/summary.md")
    common = ("compare", bundle, "--data", digits, *SQUARE)
    done = rctk(*common, "--samples", "30", *files)
    assert done.code == 3, done.err
    assert "not enough samples" in done.out
    case = ET.parse(tmp_path / "ci" / "gate.xml").getroot()
    assert (case.get("tests"), case.get("errors")) == ("2", "2")
    assert json.loads((tmp_path / "ci" / "gate.json").read_text())["exit_code"] == 3
    assert "not enough samples" in (tmp_path / "ci" / "summary.md").read_text()
    assert rctk(*common, "--max-drop", "0.1").code == 0


def test_an_engine_that_lost_its_accuracy_does_not_hold(rctk, tmp_path, bundle, digits):
    """The first ten weights of the last layer are exchanged: classes are confused, the file is well formed."""
    model = onnx.load(bundle / "int8-cpu.onnx")
    weight = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and 10 in t.dims)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=list(weight.dims).index(10)), weight.name))
    (tmp_path / "broken.onnx").write_bytes(model.SerializeToString())
    bare = ("broken.onnx", "--float", bundle / "float.onnx", "--input", "1x8x8", "--target-is-none")
    assert rctk("compare", *bare, "--data", digits).code == 2
    done = rctk("compare", *bare[:-1], "--data", digits, *SQUARE)
    assert done.code == 1, done.err
    assert "does not hold" in done.out


def test_the_same_seed_gives_the_same_result(rctk, tmp_path, bundle, digits):
    for folder in ("one", "two"):
        arguments = ("attack", bundle, "--data", digits, *SQUARE, "--attack", "pgd:steps=3", "--eps", "0.1")
        assert rctk(*arguments, "--samples", "50", "--out", folder).code == 0
    first, second = ({**records(tmp_path / folder)[0]["values"], "seconds": 0} for folder in ("one", "two"))
    assert first == second


def test_what_an_engine_says_about_how_a_file_runs_is_told(rctk, tmp_path, bundle, digits, monkeypatch):
    monkeypatch.setattr("rctk_export.engines.onnxruntime.spoils_int8", lambda _: True)
    done = rctk("attack", bundle, "--on", "engine", "--data", digits, "--samples", "20", *SQUARE)
    assert done.code == 0, done.err
    words = "computes fused int8 products wrongly on processors with AMX, so int8 files run unoptimised and slowly"
    assert re.search(f"^note: engine: .*{words}", done.out + done.err, re.MULTILINE)
    done = rctk("bench", bundle, "--engine", "onnxruntime", "--calls", "20", "--no-memory")
    assert done.code == 0, done.err
    assert words in done.out + done.err
    (int8,) = [found for found in records(tmp_path / "runs") if found["kind"] == "bench"][-1:]
    assert words in json.dumps(int8["values"])


def test_bench_states_the_threads_that_ran(rctk, tmp_path, bundle):
    arguments = ("--engine", "onnxruntime:threads=2", "--calls", "5", "--no-memory", "--out", "runs")
    done = rctk("bench", bundle, *arguments)
    assert "batch 1, 2 threads" in done.out
    assert {record["settings"]["threads"] for record in records(tmp_path / "runs")} == {2}


def test_a_report_without_records_names_the_commands_that_make_some(rctk, tmp_path):
    assert "cannot read nowhere" in rctk("report", "nowhere").refusal
    (tmp_path / "records.jsonl").write_text("")
    assert "holds no record" in rctk("report", ".").refusal
    (tmp_path / "notes.txt").write_text("one\ntwo\nthree\n")
    assert "rctk bench" in rctk("report", "notes.txt").refusal
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list",), ["apgd-ce", "onnxruntime", "cpu-mirror", "percentile", "train.pgd_at", "resnet20", "cifar10"]),
        (("list", "engines"), ["Runs an ONNX file with ONNX Runtime."]),
        (("doctor",), ["python", "engine onnxruntime", "RCTK_DATA"]),
    ],
)
def test_what_there_is_to_choose_from(rctk, arguments, words):
    done = rctk(*arguments)
    assert done.code == 0, done.err
    assert [word for word in words if word not in done.out] == []
    needing = [line.split()[0] for line in done.out.partition("RCTK_DATA")[0].splitlines() if " needs " in line]
    assert set(needing) <= {"executorch"}, "everything else is part of the development environment"


@pytest.fixture(params=["qdq-u8s8", "qdq-s8s8", "qop-u8s8"])
def foreign(request, tmp_path, float_onnx, digits):
    """An int8 file as ONNX Runtime's own tool makes it."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from rctk.data import read_split

    batches = iter([{"images": read_split(str(digits)).images[:128]}])

    class Reader(CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    path = tmp_path / f"{request.param}.onnx"
    logging.disable(logging.WARNING)  # it advises to preprocess
    try:
        quantize_static(
            float_onnx,
            path,
            Reader(),
            quant_format=QuantFormat.QOperator if request.param.startswith("qop") else QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if request.param.endswith("s8s8") else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=request.param == "qdq-u8s8",
        )
    finally:
        logging.disable(logging.NOTSET)
    return path


def test_an_int8_file_of_another_tool_is_inspected_attacked_measured_and_gated(rctk, foreign, float_onnx, digits):
    assert rctk("inspect", foreign).code == 0
    flags = ("--input", "1x8x8", "--float", float_onnx)
    both = ("--on", "twin", "--on", "engine", "--attack", "pgd:steps=5", "--eps", "0.1")
    done = rctk("attack", foreign, *flags[:2], "--data", digits, *both)
    assert done.code == 0, done.err
    clean = re.findall(
        r"^(?:twin|engine) +(\d+\.\d)% ", done.out.partition("worst case")[2].partition("that broke")[0], re.MULTILINE
    )
    assert len(clean) == 2
    assert min(map(float, clean)) > 90
    assert rctk("bench", foreign, *flags, "--calls", "5", "--no-memory").code == 0
    done = rctk("compare", foreign, *flags, "--data", digits, *SQUARE, "--max-drop", "0.1")
    assert done.code == 0, done.err + done.out


def test_a_bare_file_leaves_nothing_in_the_folder_of_the_user(rctk, tmp_path, bundle, digits):
    rctk("attack", bundle / "int8-cpu.onnx", "--input", "1x8x8", "--data", digits, *SQUARE)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
