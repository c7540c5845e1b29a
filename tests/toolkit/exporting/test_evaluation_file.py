"""The evaluation variant: made where logits are rounded, read by score attacks, and never what ships."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk.attacks import ATTACKS
from rctk.cli.main import run
from rctk.deployment import open_deployment
from rctk.evaluation.blackbox import BlackBox
from rctk.evaluation.counting import Counted
from rctk.evaluation.scores import Scored
from rctk.forms import open_forms
from rctk.threat import ThreatModel
from rctk_export.bundle import read_bundle
from rctk_export.engines.onnxruntime import OnnxRuntime


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """A float classifier of 1x8x8 images that ends in a global average pool: its int8 logits are rounded."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((4, 1, 3, 3)) * 0.5).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["maps"], pads=[1, 1, 1, 1], name="conv"),
            helper.make_node("GlobalAveragePool", ["maps"], ["mean"], name="pool"),
            helper.make_node("Flatten", ["mean"], ["logits"], name="flat"),
        ],
        "pooled",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path_factory.mktemp("pooled")
    onnx.save(model, folder / "pooled.onnx")
    images = rng.random((80, 8, 8)).astype(np.float32)
    labels = run_logits(folder / "pooled.onnx", images[:, None]).argmax(axis=1)
    np.savez(folder / "set.npz", images=images, labels=labels)
    return folder


def run_logits(path, images):
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.fixture(scope="module")
def bundle(pooled):
    data = ["--calibration", str(pooled / "set.npz"), "--calibration-samples", "40", "--check-samples", "40"]
    out = ["-o", str(pooled / "int8"), "--records", str(pooled / "runs"), "--min-agreement", "0"]
    assert run(["export", str(pooled / "pooled.onnx"), "--input", "1x8x8", "--target", "cpu", *data, *out]) == 0
    return read_bundle(pooled / "int8")


def test_a_file_with_rounded_logits_gets_a_variant_with_the_same_classes(bundle):
    variant, shipped = bundle.file("evaluation", "cpu"), bundle.file("int8", "cpu")
    assert variant.facts["same_labels"] is True
    assert variant.facts["samples"] == 40
    assert variant.facts["shipped"] == shipped.facts["score_resolution"]
    assert shipped.facts["score_resolution"]["distinct"] < 100
    assert variant.facts["score_resolution"]["distinct"] > 150
    assert variant.facts["score_resolution"]["step"] < shipped.facts["score_resolution"]["step"]


def test_score_attacks_of_the_engine_read_the_variant(bundle, pooled):
    images = np.load(pooled / "set.npz")["images"][:, None]
    with open_deployment(bundle.path) as deployment, open_forms(deployment, ("engine",), "onnxruntime") as forms:
        predict = forms[0].predict
        assert isinstance(predict, Scored)
        with OnnxRuntime().open(deployment.deployed) as engine:
            assert np.array_equal(predict(images), engine.predict(images))
        assert np.unique(predict.scores(images)).size > np.unique(predict(images)).size


def test_the_engine_alone_decides_and_gets_another_search_where_the_variant_was_too_early():
    """The variant says broken at a pixel of 0.2, the engine only at 0.6: what fooled the variant alone counts not."""
    asked = {"engine": 0, "variant": 0}

    def side(name, border):
        def predict(images):
            asked[name] += len(images)
            away = images.max(axis=(1, 2, 3)) - border
            return np.stack([-away, away], axis=1).astype(np.float32)

        return predict

    counted = Counted(Scored(side("engine", 0.6), side("variant", 0.2)), 3, 8)
    x, y = np.zeros((3, 1, 4, 4), dtype=np.float32), np.zeros(3, dtype=np.int64)
    attack = ATTACKS.build("square:queries=40")
    for eps, broken in ((0.7, True), (0.4, False)):
        crafter = BlackBox(attack, ThreatModel(eps=eps), 0, counted, None)
        proposal = crafter.craft(x, y, np.arange(3))
        assert (counted.classes(proposal.images, np.arange(3)) != y).tolist() == [broken] * 3
    assert asked["variant"] > 0
    assert counted.total == asked["engine"] + asked["variant"]


def test_attacks_on_labels_ask_the_engine_itself():
    def variant(_images):
        raise AssertionError

    counted = Counted(Scored(lambda x: np.tile(np.float32([1, 0]), (len(x), 1)), variant), 2, 8)
    crafter = BlackBox(ATTACKS.build("rays:queries=5"), ThreatModel(eps=0.1), 0, counted, None)
    crafter.craft(np.zeros((2, 1, 4, 4), dtype=np.float32), np.zeros(2, dtype=np.int64), np.arange(2))


def test_a_bare_file_gets_its_variant_on_the_fly(bundle, pooled):
    from rctk_export.input_spec import InputSpec

    spec = InputSpec(channels=1, height=8, width=8)
    with open_deployment(bundle.path / "int8-cpu.onnx", spec=spec) as deployment:
        assert deployment.evaluation is not None
    with open_deployment(pooled / "pooled.onnx", spec=spec) as deployment:
        assert deployment.evaluation is None


def test_the_command_says_so(bundle, pooled, capsys):
    command = ["attack", str(bundle.path), "--data", str(pooled / "set.npz"), "--attack", "square:queries=20"]
    assert run([*command, "--eps", "0.05", "--out", str(pooled / "attacked")]) == 0
    assert "score attacks read its evaluation variant" in capsys.readouterr().out
    record = json.loads((pooled / "attacked" / "records.jsonl").read_text().splitlines()[-1])
    assert record["values"]["answers"]["evaluation_variant"] is True
    assert record["values"]["answers"]["score_resolution"]["distinct"] < 100


def test_inspect_shows_the_variant(bundle, capsys):
    assert run(["inspect", str(bundle.path)]) == 0
    assert "evaluation cpu" in capsys.readouterr().out
