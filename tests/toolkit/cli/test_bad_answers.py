"""Models and images that are not what they should be: one line and exit 2 with nothing lost, or a note that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from rctk.cli.main import run

BARE = ("--input", "1x8x8")
QUICK = ("--attack", "square:queries=5", "--eps", "0.1", "--samples", "40")


@pytest.fixture(params=["attack", "compare"])
def command(request):
    return request.param


@pytest.fixture
def judge(rctk, bundle, digits, command):
    """Attack a bare file, or gate it against the float file of the bundle."""
    parent = ("--float", bundle / "float.onnx")

    def call(path, *arguments, data=digits):
        return rctk(command, path, *BARE, *parent, "--data", data, *QUICK, *arguments)

    return call


def append(model, *nodes):
    """Put nodes behind the output; the first reads ``before``, the last writes the output."""
    name = model.graph.output[0].name
    maker = next(node for node in model.graph.node if name in node.output)
    maker.output[list(maker.output).index(name)] = "before"
    model.graph.node.extend(nodes)


def constant(model, name, value):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def test_an_engine_that_answers_nan(judge, changed, tmp_path):
    def poison(model):
        constant(model, "nan", np.float32("nan"))
        append(model, helper.make_node("Mul", ["before", "nan"], [model.graph.output[0].name], name="poison"))

    refusal = judge(changed(poison)).refusal
    assert "NaN" in refusal
    assert not (tmp_path / "runs").exists()


def test_an_audit_of_nan_or_of_other_classes_is_refused_before_its_checks(rctk, changed, digits):
    def poison(model):
        constant(model, "nan", np.float32("nan"))
        append(model, helper.make_node("Mul", ["before", "nan"], [model.graph.output[0].name], name="poison"))

    def cut(model):
        for name, value in (("from", 0), ("to", 7), ("axis", 1)):
            constant(model, name, np.array([value], dtype=np.int64))
        append(model, helper.make_node("Slice", ["before", "from", "to", "axis"], [model.graph.output[0].name]))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7

    flags = (*BARE, "--on", "engine", "--data", digits, "--samples", "40", "--eps", "0.1")
    assert "NaN" in rctk("audit", changed(poison), *flags).refusal
    assert "there are 7 classes" in rctk("audit", changed(cut, "seven.onnx"), *flags).refusal


def test_probabilities_spelt_out_become_logits_and_the_choice_is_told(judge, changed, tmp_path, command):
    def spell_out(model):
        constant(model, "last", np.array([1], dtype=np.int64))
        append(
            model,
            helper.make_node("Exp", ["before"], ["powers"], name="exp"),
            helper.make_node("ReduceSum", ["powers", "last"], ["sum"], keepdims=1, name="sum"),
            helper.make_node("Div", ["powers", "sum"], [model.graph.output[0].name], name="div"),
        )

    done = judge(changed(spell_out))
    assert done.code in {0, 1, 3}, done.err
    assert "engine: it answers probabilities, not logits: attacks read their logarithm" in done.out
    record = json.loads((tmp_path / "runs" / "records.jsonl").read_text().splitlines()[0])
    answers = record["values"]["answers"]
    assert (answers if command == "attack" else answers["engine"])["probabilities"] is True


def test_a_softmax_that_can_be_seen_is_taken_out(judge, changed):
    def soften(model):
        append(model, helper.make_node("Softmax", ["before"], [model.graph.output[0].name], axis=1, name="soft"))

    done = judge(changed(soften))
    assert done.code in {0, 1, 3}, done.err
    assert "probabilities" not in done.out


def test_another_number_of_classes_than_the_parent(rctk, changed, bundle, digits, tmp_path):
    def widen(model):
        constant(model, "pads", np.array([0, 0, 0, 2], dtype=np.int64))
        append(model, helper.make_node("Pad", ["before", "pads"], [model.graph.output[0].name], name="wider"))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 12

    wide, parent = changed(widen), ("--float", bundle / "float.onnx")
    refusal = rctk("compare", wide, *BARE, *parent, "--data", digits, *QUICK).refusal
    assert "engine answers 12 logits and float 10: not the same classes" in refusal
    assert not (tmp_path / "runs").exists()


def test_different_answers_for_the_same_image_are_measured(rctk, changed, digits, tmp_path):
    def shake(model):
        name = model.graph.output[0].name
        noise = helper.make_node("RandomNormalLike", ["before"], ["noise"], scale=3.0, name="noise")
        append(model, noise, helper.make_node("Add", ["before", "noise"], [name], name="shaken"))

    done = rctk("attack", changed(shake), *BARE, "--data", digits, *QUICK)
    assert done.code == 0, done.err
    assert "images changed their class in 3 passes" in done.out
    record = json.loads((tmp_path / "runs" / "records.jsonl").read_text())
    assert record["values"]["answers"]["changed_classes"] > 0


@pytest.mark.parametrize(
    ("values", "words"),
    [((1.5, 0.0), "expected [0, 1]"), ((-0.2, 1.0), "expected [0, 1]"), ((np.nan, 0.0), "holds NaN")],
)
def test_images_outside_of_0_to_1(judge, bundle, tmp_path, values, words):
    images = np.full((4, 1, 8, 8), 0.5, dtype=np.float32)
    images[1, 0, 0, :2] = values
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(4))
    assert words in judge(bundle / "int8-cpu.onnx", data=tmp_path / "set.npz").refusal
    assert not (tmp_path / "runs").exists()


def test_classes_in_another_order(rctk, command, bundle, digits, tmp_path):
    with np.load(digits) as found:
        images, labels = found["images"], found["labels"]
    names = json.loads((bundle / "manifest.json").read_text())["classes"]
    np.savez(tmp_path / "set.npz", images=images, labels=labels, classes=np.array(names[::-1]))
    refusal = rctk(command, bundle, "--data", tmp_path / "set.npz", *QUICK).refusal
    assert "number their classes differently: class 0 is" in refusal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--eps", "8"), "write 8/255?"),
        (("--eps", "1.01"), "is larger than 1"),
        (("--eps", "0"), "eps must be a positive number"),
        (("--eps", "-1/255"), "eps must be a positive number"),
        (("--eps", "nan"), "eps must be a positive number"),
        (("--attack", "square:queries=0"), "square:queries must be at least 1"),
        (("--attack", "pgd:steps=0"), "steps"),
        (("--attack", "rays:queries=-3"), "queries"),
        (("--samples", "0"), "--samples must be at least 1"),
        (("--batch-size", "0"), "batch_size must be at least 1"),
    ],
)
def test_budgets_of_nothing_or_too_much(rctk, command, bundle, digits, arguments, words):
    assert words in rctk(command, bundle, "--data", digits, *arguments).refusal
    assert not Path("runs").exists()  # in the empty folder where the command runs


def test_the_whole_box_breaks_everything(rctk, bundle, digits):
    done = rctk("attack", bundle, "--data", digits, "--samples", "40", "--eps", "1", "--attack", "apgd-ce:steps=20")
    assert done.code == 0
    assert " 0.0% (" in done.out


def test_a_norm_that_an_attack_does_not_know_names_one_that_it_does(rctk, bundle, digits):
    refusal = rctk("attack", bundle, "--data", digits, "--attack", "surfree", "--norm", "linf").refusal
    assert refusal.endswith("or --norm l2")


def test_a_product_that_is_fed_8_bit_pixels_is_attacked_with_them(tmp_path, float_onnx, digits, capsys, monkeypatch):
    """An int8 graph with a uint8 input, as a camera pipeline runs it: candidates between two levels cannot reach it."""
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx.load(float_onnx.parent / "int8-cpu.onnx")
    name = model.graph.input[0].name
    for node in model.graph.node:
        for at, tensor in enumerate(node.input):
            if tensor == name:
                node.input[at] = "scaled"
    constant(model, "level", np.float32(1 / 255))
    constant(model, "black", np.uint8(0))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["pixels", "level", "black"], ["scaled"]))
    model.graph.input[0].name = "pixels"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, tmp_path / "pixels.onnx")
    command = ["attack", "pixels.onnx", *BARE, "--data", str(digits), *QUICK]
    assert run(command) == 0
    assert "the product feeds 8-bit pixels" in capsys.readouterr().out
    record = json.loads((tmp_path / "runs" / "records.jsonl").read_text())
    assert record["settings"]["grid"] == "uint8"
