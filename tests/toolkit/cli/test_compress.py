"""``rctk compress`` and ``rctk export`` with the steps of a recipe."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from rctk.checkpoint import load_model
from rctk.cli.recipe_flags import RecipeFlags
from rctk.compress import STEPS
from rctk.compress.recipe import Recipe
from rctk_kernels.errors import OptionError

PRUNE = "prune.depgraph:criterion=l1,ratio=0.3,by=params"
FEW = ("--calibration-samples", "64", "--check-samples", "32", "--target", "cpu", "--allow-mismatch")
DATA = ("--data", "digits:train", "--samples", "200")


def last_record(folder):
    return json.loads((folder / "records.jsonl").read_text().splitlines()[-1])


def weights(path):
    return load_model(path).module.state_dict()


def same(first, second):
    one, two = weights(first), weights(second)
    return all(torch.equal(one[key], two[key]) for key in one)


def test_a_pruned_checkpoint_can_be_exported(rctk, tmp_path, checkpoint):
    done = rctk("compress", checkpoint, *DATA, "--step", PRUNE, "-o", "small/net.pt")
    assert done.code == 0, done.err
    assert "step 1 of 1: prune.depgraph:criterion=l1,ratio=0.3,by=params" in done.err
    assert "clean, 20 of digits:train" in done.out
    small = load_model(tmp_path / "small" / "net.pt")
    assert small.arch == "pruned:digits-cnn"
    assert small.extra["parent"]["source"] == "digits.pt"
    assert [step["step"] for step in small.extra["recipe"]] == ["prune.depgraph"]
    record = last_record(tmp_path / "runs")
    assert record["kind"] == "compress"
    assert record["values"]["before"]["parameters"] == 76522
    counted = sum(value.numel() for value in small.module.parameters())
    assert record["values"]["after"]["parameters"] == counted < 0.7 * 76522
    assert f"{counted:,}" in done.out
    assert record["values"]["after"]["samples"] == 20
    assert record["settings"]["recipe"][0]["ratio"] == 0.3
    assert done.out.endswith("next: rctk export --int8 small/net.pt --calibration SET:train\n")
    few = ("--calibration-samples", "64", "--check-samples", "32", "--target", "cpu", "--allow-mismatch")
    done = rctk("export", "small/net.pt", "--calibration", "digits:train", *few)
    assert done.code == 0, done.err


def test_a_recipe_file_says_the_same_as_steps(rctk, tmp_path, checkpoint):
    (tmp_path / "r.yaml").write_text("- prune.depgraph: {criterion: l1, ratio: 0.3, by: params}\n")
    one = rctk("compress", checkpoint, *DATA, "--step", PRUNE, "-o", "one.pt")
    two = rctk("compress", checkpoint, *DATA, "--recipe", "r.yaml", "-o", "two.pt", "--work", "one-steps")
    assert (one.code, two.code) == (0, 0), two.err
    assert "(kept from an earlier run)" in two.err
    assert same(tmp_path / "one.pt", tmp_path / "two.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "rctk compress needs --recipe FILE or --step"),
        (("--step", "prune.depgraf"), "step 1 of --step: unknown step 'prune.depgraf'; did you mean 'prune.depgraph'"),
        (("--step", PRUNE, "--recipe", "r.yaml"), "put all of them into one of the two"),
        (("--recipe", "r.yaml"), "cannot read the recipe r.yaml: No such file"),
        (("--step", "prune.depgraph:ratio=2"), "ratio"),
        (("--step", PRUNE, "--validation", "digits:nothing"), "digits"),
        (("--step", PRUNE, "-o", "small.onnx"), "a checkpoint ends in .pt or .safetensors"),
        (
            ("--step", "quant.equalize", "--step", PRUNE),
            "prune.depgraph changes the torch module, which is an ONNX graph",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(rctk, tmp_path, checkpoint, arguments, message):
    out = () if "-o" in arguments else ("-o", "small.pt")
    done = rctk("compress", checkpoint, *DATA, *arguments, *out)
    assert message in done.refusal
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("train.finetune:precision=fp16", "step 2 of 2, train.finetune: precision fp16 needs a CUDA GPU"),
        ("train.finetune:objective=mart,augment=mixup", "train.finetune: mart needs one class per image"),
        ("quant.lsq:precision=fp16", "step 2 of 2, quant.lsq: precision fp16 needs a CUDA GPU"),
        ("distill.kd:devices=9,accelerator=cuda", "9 CUDA devices are asked for and torch finds"),
    ],
)
def test_what_the_last_step_cannot_do_here_is_said_before_the_first(rctk, tmp_path, checkpoint, last, words):
    refusal = rctk("compress", checkpoint, *DATA, "--step", PRUNE, "--step", last, "-o", "x.pt").refusal
    assert words in refusal
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (("compress", "--data", "digits", "--step", PRUNE, "-o", "x.pt"), "--data"),
        (("export", "--calibration", "digits", "-o", "x"), "--calibration"),
        (("export", "--calibration", "digits:train", "--data", "digits", "--step", PRUNE, "-o", "x"), "--data"),
    ],
)
def test_nothing_learns_from_test_images_because_a_split_was_left_out(rctk, tmp_path, checkpoint, command, flag):
    refusal = rctk(command[0], checkpoint, *command[1:]).refusal
    assert f"{flag} digits names no split; write digits:train" in refusal
    assert list(tmp_path.iterdir()) == []


def test_what_comes_next_names_the_file_of_an_architecture(rctk, tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(576, 10))\n"
    )
    arch = ("--arch", "nets.py:make")
    done = rctk("train", *arch, "--data", "digits:train", "--samples", "40", "--epochs", "1", "-o", "m.pt")
    assert done.code == 0, done.err
    done = rctk("compress", "m.pt", *arch, *DATA, "--step", "prune.depgraph:ratio=0.2", "-o", "small.pt")
    assert done.code == 0, done.err
    words = done.out.splitlines()[-1].removeprefix("next: rctk ").replace("SET", "digits").split()
    assert rctk(*words, *FEW).code == 0


def test_the_model_is_not_overwritten(rctk, checkpoint):
    before = checkpoint.read_bytes()
    done = rctk("compress", checkpoint, *DATA, "--step", PRUNE, "-o", checkpoint)
    assert "is the model itself" in done.refusal
    assert checkpoint.read_bytes() == before


def test_steps_are_listed_with_one_line_each(rctk):
    done = rctk("list", "steps")
    assert done.code == 0
    rows = [line.split(maxsplit=1) for line in done.out.splitlines()[3:] if line.strip()]
    assert [name for name, _ in rows] == STEPS.names()
    assert all(about[0].isupper() and about.rstrip().endswith((".", ":")) for _, about in rows), done.out


def test_an_export_runs_the_steps_first_and_its_manifest_says_so(rctk, tmp_path, checkpoint):
    arguments = ("export", checkpoint, "--calibration", "digits:train", "--samples", "200", *FEW)
    done = rctk(*arguments, "--step", PRUNE, "-o", "small")
    assert done.code == 0, done.err
    model = json.loads((tmp_path / "small" / "manifest.json").read_text())["model"]
    assert model["source"] == "digits.pt"
    assert model["sha256"] == load_model(checkpoint).sha256
    assert model["arch"] == "pruned:digits-cnn"
    assert [(step["step"], step["ratio"]) for step in model["recipe"]] == [("prune.depgraph", 0.3)]
    assert model["before"]["parameters"] == 76522
    assert model["after"]["parameters"] < 0.7 * 76522
    assert last_record(tmp_path / "runs")["settings"]["recipe"] == model["recipe"]
    dense = rctk(*[each for each in arguments if each not in {"--samples", "200"}], "-o", "dense")
    assert dense.code == 0, dense.err
    sizes = [(tmp_path / name / "int8-cpu.onnx").stat().st_size for name in ("small", "dense")]
    assert sizes[0] < 0.75 * sizes[1]
    again = rctk(*arguments, "--step", PRUNE, "-o", "again", "--work", "small-steps")
    assert "(kept from an earlier run)" in again.err
    assert (tmp_path / "again" / "float.onnx").read_bytes() == (tmp_path / "small" / "float.onnx").read_bytes()


def test_a_stopped_recipe_goes_on_with_the_same_result(start, tmp_path, checkpoint):
    """Side by side in processes of their own, so that all have the same number of threads; one is stopped once."""
    arguments = ("compress", checkpoint, *DATA, "--step", PRUNE, "--step", "train.finetune:epochs=12,lr=0.02")
    through = start(*arguments, "-o", "through.pt")
    process = start(*arguments, "-o", "stopped.pt")
    while (line := process.stderr.readline()) and "epoch 2/12" not in line:
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("interrupted; finished results are kept\n")
    assert not (tmp_path / "stopped.pt").exists()
    assert [path.name[:17] for path in (tmp_path / "stopped-steps").glob("*.pt")] == ["01-prune.depgraph"]
    again = start(*arguments, "-o", "stopped.pt")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "step 1 of 2: prune.depgraph:criterion=l1,ratio=0.3,by=params (kept from an earlier run)" in err
    assert "going on after epoch" in err
    _, err = through.communicate(timeout=120)
    assert through.returncode == 0, err
    assert same(tmp_path / "through.pt", tmp_path / "stopped.pt")


def test_graph_steps_are_in_the_manifest_of_an_export(rctk, tmp_path, checkpoint):
    (tmp_path / "r.yaml").write_text(f"- {PRUNE}\n- quant.equalize\n- quant.bias_correction: {{samples: 32}}\n")
    done = rctk("export", checkpoint, "--calibration", "digits:train", *FEW, "--recipe", "r.yaml", "-o", "small")
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    steps = [step["step"] for step in manifest["model"]["recipe"]]
    assert steps == ["prune.depgraph", "quant.equalize", "quant.bias_correction"]
    (facts,) = [file["facts"] for file in manifest["files"] if file["role"] == "int8"]
    assert list(facts["steps"]) == steps[1:]
    shown = rctk("inspect", "small").out
    assert "step 3: quant.bias_correction (samples 32)" in shown
    assert "parameters: 76,522 before the steps, " in shown


def test_a_graph_takes_no_module_steps(rctk, tmp_path, float_onnx):
    arguments = ("export", float_onnx, "--input", "1x8x8", "--calibration", "digits:train", *FEW, "-o", "out")
    assert (
        "prune.depgraph changes a torch module, and float.onnx is a graph" in rctk(*arguments, "--step", PRUNE).refusal
    )
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_trains_for_one_target_is_refused_for_others_before_it_trains(rctk, checkpoint, digits):
    refusal = rctk("export", checkpoint, "--calibration", digits, "--step", "quant.lsq:epochs=9000").refusal
    assert "quant.lsq trains the grids of one target, cpu, and not of cpu, tensorrt; pass --target cpu alone" in refusal


@pytest.mark.parametrize("step", ["quant.weight_only:bits=4", "quant.ptq_dynamic8"])
def test_a_form_of_one_target_is_refused_for_others_before_anything_trains(rctk, tmp_path, checkpoint, step):
    arguments = ("--calibration", "digits:train", "--step", "train.finetune:epochs=9000", "--step", step, "-o", "out")
    refusal = rctk("export", checkpoint, *arguments).refusal
    assert "files are for ONNX Runtime on CPUs only; pass --target cpu and no other" in refusal
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "step",
    ["quant.ptq_static8:weight_bits=9", "quant.ptq_static8:activation_bits=1", "quant.layer_bits:layer=a,input_bits=9"],
)
def test_widths_that_do_not_exist_are_refused_with_the_recipe(step):
    with pytest.raises(OptionError, match=r"step 1 of the recipe: quant\.(ptq_static8|layer_bits):.*have 2 to 8 bits"):
        Recipe.of([step])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--step", "quant.ptq_static8", "--calibrator", "mse"),
            "--calibrator has no effect beside quant.ptq_static8; write quant.ptq_static8:calibrator=mse",
        ),
        (("--step", "quant.ptq_static8", "--calibration-kind", "adv"), "write quant.ptq_static8:calib=adv"),
        (
            ("--step", "quant.ptq_dynamic8", "--target", "cpu", "--calibrator", "mse"),
            "--calibrator has no effect beside quant.ptq_dynamic8; leave it out",
        ),
        (
            ("--step", "quant.weight_only", "--target", "cpu", "--weights", "per-tensor"),
            "--weights has no effect beside quant.weight_only; leave it out",
        ),
        (
            ("--step", "quant.weight_only", "--target", "cpu", "--max-drop", "0.01"),
            "--max-drop is for static int8, and quant.weight_only writes a weight-only file",
        ),
        (("--keep-float", "fcc"), "unknown layer 'fcc'"),
        (("--step", "quant.layer_bits:layer=fcc,weight_bits=4"), "unknown layer 'fcc'"),
        (
            ("--step", "distill.kd:teacher=nope.pt"),
            "step 2 of 2, distill.kd: there is no model file nope.pt; check the path",
        ),
        (("--step", "prune.depgraph:skip=fcc"), "step 2 of 2, prune.depgraph: unknown layer 'fcc'"),
        (("--step", "prune.nm24:skip=fcc"), "step 2 of 2, prune.nm24: unknown 2:4 layer 'fcc'"),
        (("--step", "prune.slimming:lr=0"), "training needs lr > 0"),
        (("--step", "prune.depgraph:objective=trades"), "objective and lr need epochs"),
        (("--step", "quant.mixed:eps=8"), "8.0 is larger than 1"),
        (("--step", "quant.mixed:target=cup"), "unknown target 'cup'; did you mean 'cpu'?"),
    ],
)
def test_what_does_not_go_with_a_step_is_refused_before_anything_trains(rctk, tmp_path, checkpoint, flags, words):
    arguments = ("--calibration", "digits:train", "--step", "train.finetune:epochs=9000", *flags, "-o", "out")
    assert words in rctk("export", checkpoint, *arguments).refusal
    assert list(tmp_path.iterdir()) == []


def test_a_target_latency_is_a_pruning_step_in_front_of_the_others():
    recipe = RecipeFlags(target_latency=0.4, step=("train.finetune:epochs=1",)).read()
    first, second = recipe.as_list()
    assert (first["step"], first["by"], second["step"]) == ("prune.depgraph", "latency", "train.finetune")
    assert first["ratio"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--target-latency", "1.5"), "between 0 and 1"),
        (("--target-latency", "1/2", "--recipe", "r.yaml"), "or --recipe"),
    ],
)
def test_a_target_latency_that_makes_no_sense_is_refused(rctk, checkpoint, flags, words):
    assert words in rctk("compress", checkpoint, "--data", "digits:train", "-o", "m.pt", *flags).refusal
