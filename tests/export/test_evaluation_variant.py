from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.evaluation_variant import check_same_labels, score_resolution, unrounded_logits
from rctk_kernels.errors import MismatchError


def classifier(*, pair: bool, flatten: bool = False) -> onnx.ModelProto:
    """A linear layer on two pixels, its logits rounded to steps of 0.5 where ``pair`` says so."""
    last = "sum" if pair or flatten else "logits"
    nodes = [helper.make_node("MatMul", ["images", "w"], [last])]
    if pair:
        out = "rounded" if flatten else "logits"
        nodes += [
            helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "step", "zero"], [out]),
        ]
        last = out
    if flatten:
        nodes.append(helper.make_node("Flatten", [last], ["logits"]))
    weights = {
        "w": np.array([[1.0, 0.9, 0.0], [0.0, 0.2, 1.0]], dtype=np.float32),
        "step": np.float32(0.5),
        "zero": np.int8(0),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("flatten", [False, True])
def test_the_variant_has_the_logits_before_rounding(flatten):
    images = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    shipped = classifier(pair=True, flatten=flatten)
    variant = unrounded_logits(shipped)
    onnx.checker.check_model(variant, full_check=True)
    assert np.array_equal(run(variant, images), run(classifier(pair=False), images))
    assert score_resolution(run(shipped, images)).distinct <= 4
    assert score_resolution(run(variant, images)).distinct > 100
    tied = check_same_labels(run(shipped, images), run(variant, images))
    assert tied.any()


def test_a_file_without_rounded_logits_needs_no_variant():
    assert unrounded_logits(classifier(pair=False)) is None


def test_another_label_on_an_image_without_a_tie_is_refused():
    rounded = np.array([[2.0, 1.0, 0.0]], dtype=np.float32)
    with pytest.raises(MismatchError, match="1 of 1"):
        check_same_labels(rounded, np.array([[0.0, 1.0, 0.5]], dtype=np.float32))


def test_within_a_tie_either_label_is_right():
    rounded = np.array([[2.0, 2.0, 0.0]], dtype=np.float32)
    assert check_same_labels(rounded, np.array([[1.9, 2.1, 0.0]], dtype=np.float32)).tolist() == [True]
