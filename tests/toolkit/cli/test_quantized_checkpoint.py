"""``rctk compress`` with quantization steps: one file, of which ``rctk export`` makes the bundle."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from rctk.checkpoint import load_model
from rctk.compress.images import hold_out
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.exporting.by_recipe import quantize_by_recipe
from rctk.exporting.export import ExportSettings
from rctk.exporting.quantized_checkpoint import save_quantized

DATA = ("--data", "digits:train", "--samples", "200")
FEW = ("--calibration-samples", "64", "--check-samples", "32", "--allow-mismatch")
PRUNE = "prune.depgraph:criterion=l1,ratio=0.3,by=params"
LSQ = "quant.lsq:weights=4,activations=4,epochs=1,edge_layers=same"


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    """A quantized checkpoint of four-bit weights, made once."""
    images = hold_out(read_split("digits:train", samples=200), seed=0)
    model = load_model(checkpoint)
    context = Context(train=images.train, validation=images.validation, input=model.input)
    path = tmp_path_factory.mktemp("quantized") / "w4a4.pt"
    save_quantized(path, quantize_by_recipe(model, Recipe.of([LSQ]), context, ExportSettings()))
    return path


@pytest.fixture
def trained(made, tmp_path):
    """A copy that a test may damage, where commands run."""
    return Path(shutil.copy(made, tmp_path))


def test_it_becomes_the_bundle_that_an_export_with_the_recipe_gives(rctk, tmp_path, checkpoint):
    done = rctk("compress", checkpoint, *DATA, "--step", PRUNE, "--step", LSQ, "-o", "w4a4.pt")
    assert done.code == 0, done.err
    assert "int8 file for cpu" in done.out
    assert done.out.endswith("next: rctk export --int8 w4a4.pt --calibration SET:train --target cpu\n")
    two = rctk("export", "w4a4.pt", "--calibration", "digits:train", "--target", "cpu", *FEW, "-o", "two")
    assert two.code == 0, two.err
    arguments = ("--calibration", "digits:train", "--samples", "200", "--target", "cpu", *FEW)
    one = rctk("export", checkpoint, *arguments, "--step", PRUNE, "--step", LSQ, "-o", "one")
    assert one.code == 0, one.err
    for name in ("float.onnx", "int8-cpu.onnx"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    models = [json.loads((tmp_path / name / "manifest.json").read_text())["model"] for name in ("one", "two")]
    assert models[0] == models[1]
    assert [step["step"] for step in models[0]["recipe"]] == ["prune.depgraph", "quant.lsq"]
    record = json.loads((tmp_path / "runs" / "records.jsonl").read_text().splitlines()[0])
    before, after = record["values"]["before"], record["values"]["after"]
    assert before["parameters"] == 76522
    assert after["parameters"] < 0.8 * 76522
    assert after["macs"] < before["macs"]
    assert after["file_bytes"] == (tmp_path / "two" / "int8-cpu.onnx").stat().st_size
    assert record["subject"]["target"] == "cpu"


def test_steps_go_on_where_earlier_ones_have_ended(rctk, tmp_path, checkpoint):
    rctk("compress", checkpoint, *DATA, "--step", "quant.seqmse:samples=32", "-o", "a.safetensors")
    done = rctk("compress", "a.safetensors", *DATA, "--step", "quant.adaround:iterations=9,samples=32", "-o", "b.pt")
    assert done.code == 0, done.err
    shown = rctk("inspect", "b.pt", "--layers").out
    assert "step 1: quant.seqmse" in shown
    assert "step 2: quant.adaround (iterations 9" in shown
    assert "codes" in shown
    facts = json.loads(rctk("inspect", "b.pt", "--json").out)
    assert [row["weights"] for row in facts["layers"]] == ["codes"] * 4
    assert list(facts["facts"]) == ["quant.seqmse", "quant.adaround"]
    done = rctk(
        "export",
        "b.pt",
        "--calibration",
        "digits:train",
        *FEW,
        "-o",
        "out",
        "--step",
        "quant.bias_correction:samples=32",
    )
    assert done.code == 0, done.err
    recipe = json.loads((tmp_path / "out" / "manifest.json").read_text())["model"]["recipe"]
    assert [step["step"] for step in recipe] == ["quant.seqmse", "quant.adaround", "quant.bias_correction"]


def test_a_float_graph_can_be_quantized_too(rctk, float_onnx):
    arguments = ("compress", float_onnx, "--input", "1x8x8", *DATA, "-o", "g.pt")
    done = rctk(*arguments, "--step", "quant.equalize")
    assert done.code == 0, done.err
    assert (
        "prune.nm24 changes a torch module, and float.onnx is a graph"
        in rctk(*arguments, "--step", "prune.nm24").refusal
    )


def test_widths_are_those_of_the_codes(rctk, trained):
    shown = json.loads(rctk("inspect", "w4a4.pt", "--json").out)["layers"]
    assert max(row["weight_bits"] for row in shown) <= 4
    assert [row["input_bits"] for row in shown] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ("compress", "w4a4.pt", *DATA, "--step", "prune.nm24", "-o", "x.pt"),
            "prune.nm24 changes a torch module, and w4a4.pt",
        ),
        (
            ("compress", "w4a4.pt", *DATA, "--step", "quant.equalize", "-o", "x.pt"),
            "quant.lsq has fixed their codes or scales already",
        ),
        (
            ("export", "w4a4.pt", "--calibration", "digits:train", "-o", "x"),
            "quant.lsq trains the grids of one target, cpu",
        ),
        (
            ("export", "w4a4.pt", "--calibration", "digits:train", "--target", "cpu", "--calibrator", "mse", "-o", "x"),
            "--calibrator is decided in w4a4.pt, which steps have quantized; leave --calibrator out",
        ),
        (
            ("export", "w4a4.pt", "--calibration", "digits:train", "--arch", "mlp", "-o", "x"),
            "holds its own graph and input",
        ),
        (("inspect", "w4a4.pt", "--input", "1x8x8"), "holds a quantized graph, which is no torch module any more"),
    ],
)
def test_what_it_cannot_be_used_for_is_said_in_one_line(command, words, rctk, tmp_path, trained):
    assert words in rctk(*command).refusal
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("{name: m, target: tensorrt}", "quant.lsq trains the grids of one target, cpu"),
        ("{name: m, target: cpu, calibrator: mse}", "--calibrator is decided in w4a4.pt"),
        ("{name: m, target: cpu, steps: [prune.nm24]}", "prune.nm24 changes a torch module, and w4a4.pt is a graph"),
    ],
)
def test_a_study_says_so_before_it_runs_a_cell(method, words, rctk, tmp_path, trained):
    head = "models: [w4a4.pt]\ndata: digits:test\ncalibration: digits:train\nattacks: [noise]\neps: 0.1\nmethods:\n"
    (tmp_path / "s.yaml").write_text(f"{head}  - {method}\n")
    done = rctk("study", "s.yaml", "--no-html")
    assert done.code == 2
    assert words in done.refusal
    assert not (tmp_path / "STUDY-s").exists()


@pytest.mark.parametrize("damage", ["cut", "field", "version", "grid"])
def test_a_damaged_file_is_one_line(damage, rctk, trained):
    path = trained
    content = torch.load(path)
    if damage == "field":
        del content["draft"]["formats"]
    elif damage == "version":
        content["version"] = 99
    elif damage == "grid":
        name = next(iter(content["draft"]["formats"]["steps"]))
        content["draft"]["formats"]["steps"][name] = [-1.0, 0, 15]
    torch.save(content, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    refusal = rctk("export", "w4a4.pt", "--calibration", "digits:train", "--target", "cpu", "-o", "x").refusal
    assert "w4a4.pt" in refusal
    assert {"cut": "cut short", "version": "upgrade rctk"}.get(damage, "damaged checkpoint") in refusal


def test_a_stopped_recipe_goes_on_behind_the_last_finished_graph_step(start, tmp_path, checkpoint):
    steps = ("--step", "quant.seqmse:samples=32", "--step", "quant.adaround:iterations=20000")
    process = start("compress", checkpoint, *DATA, *steps, "-o", "a.pt")
    while (line := process.stderr.readline()) and "step 2 of 2" not in line:
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not (tmp_path / "a.pt").exists()
    again = start("compress", checkpoint, *DATA, *steps[:2], "-o", "a.pt")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "step 1 of 1: quant.seqmse:samples=32 (kept from an earlier run)" in err
