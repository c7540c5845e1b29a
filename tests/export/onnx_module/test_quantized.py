"""Rounding, saturation and straight-through gradients of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import GraphError, UnsupportedOperatorError  # noqa: E402
from rctk_kernels.qparams import QParams, dequantize, quantize  # noqa: E402

HALF = np.float32(0.5)


def pair(tools, zero, scale=HALF, *, shape=(6,), before=(), opset=20, **attributes):
    """x -> (before) -> q -> y, with one scale and zero point for both."""
    last = before[-1].output[0] if before else "x"
    nodes = [
        *before,
        helper.make_node("QuantizeLinear", [last, "scale", "zero"], ["q"], name="quantizer", **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantizer", **attributes),
    ]
    return tools.graph_of(nodes, {"scale": scale, "zero": zero}, shape=shape, opset=opset)


def gradient(module, x):
    x = torch.tensor(x, requires_grad=True)
    module(x).sum().backward()
    return x.grad.tolist()


X = [[-0.25, 0.25, 0.75, 0.76, 100.0, -100.0]]
# -0.25 / 0.5 = -0.5 and 0.25 / 0.5 = 0.5 round to the even 0; 1.5 rounds to 2, 1.52 to 2


@pytest.mark.parametrize("mode", ["fast", "exact"])
@pytest.mark.parametrize(
    ("zero", "codes"),
    [
        (np.int8(3), [3, 3, 5, 5, 127, -128]),
        (np.uint8(3), [3, 3, 5, 5, 203, 0]),
        (np.int16(-1), [-1, -1, 1, 1, 199, -201]),
        (np.uint16(0), [0, 0, 2, 2, 200, 0]),
    ],
)
def test_codes_and_values_worked_out_by_hand(tools, mode, zero, codes):
    module = OnnxModule(pair(tools, zero, opset=21), mode=mode)
    seen = module.observe(torch.tensor(X), ["q", "y"])
    assert seen["q"].tolist() == [codes]
    assert module(torch.tensor(X)).tolist() == [[(q - int(zero)) * 0.5 for q in codes]]
    assert seen["q"].dtype == (torch.int64 if mode == "exact" else torch.float32)


def test_a_missing_zero_point_means_uint8(tools):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    module = OnnxModule(tools.graph_of(nodes, {"scale": HALF}, shape=(6,)))
    assert module(torch.tensor(X)).tolist() == [[0, 0, 1, 1, 100, 0]]


def test_output_dtype_stands_for_the_type_of_a_missing_zero_point(tools):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], output_dtype=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    module = OnnxModule(tools.graph_of(nodes, {"scale": HALF}, shape=(6,), opset=21))
    assert module(torch.tensor(X)).tolist() == [[0, 0, 1, 1, 63.5, -64]]


def test_a_pair_with_different_computed_scales_is_not_one_step(tools):
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Add", ["top", "top"], ["twice"]),
        helper.make_node("QuantizeLinear", ["x", "top"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "twice"], ["y"]),
    ]
    module = OnnxModule(tools.graph_of(nodes, {}, shape=(2,)))
    assert module(torch.tensor([[4.0, 1.0]])).tolist() == [[8, 0]]


def test_scales_along_an_axis(tools, agrees):
    scale, zero = np.array([0.5, 0.25, 1.0], np.float32), np.array([0, 3, -7], np.int8)
    agrees(pair(tools, zero, scale, shape=(3, 4), axis=1), 40 * tools.images((3, 4)))


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_the_clipped_gradient_is_one_inside_the_range_and_zero_outside(tools, mode):
    module = OnnxModule(pair(tools, np.int8(3)), mode=mode)
    # codes -128..127 and zero point 3 hold -65.5..62; what rounds to the last code is still inside
    assert gradient(module, [[0.1, 62.0, 62.2, 62.3, -65.6, -66.0]]) == [[1, 1, 1, 0, 1, 0]]


def test_the_identity_gradient_is_one_everywhere(tools):
    module = OnnxModule(pair(tools, np.int8(3)), ste="identity")
    assert gradient(module, X) == [[1] * 6]


def test_fused_and_separate_steps_give_the_same_values_and_gradients(tools):
    fused, separate = (OnnxModule(pair(tools, np.uint8(7))) for _ in range(2))
    separate.rewrite["q"] = lambda codes: codes
    x = torch.from_numpy(30 * tools.images((6,)))
    assert torch.equal(fused(x), separate(x))
    assert gradient(fused, x.tolist()) == gradient(separate, x.tolist())


@pytest.mark.parametrize(("ste", "expected"), [("clipped", [1, 1, 0, 0]), ("identity", [1, 1, 1, 1])])
def test_a_clip_in_front_of_a_quantizer_follows_the_estimator(tools, ste, expected):
    clip = [helper.make_node("Clip", ["x", "low", "high"], ["c"])]
    model = pair(tools, np.int8(0), shape=(4,), before=clip)
    for name, value in {"low": -4, "high": 3.5}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    assert gradient(OnnxModule(model, ste=ste), [[0.0, 3.0, 4.0, -5.0]]) == [expected]


def test_a_clip_has_no_gradient_on_and_beyond_its_bounds(tools):
    module = OnnxModule(tools.one_node("Clip", np.float32(0), np.float32(6), shape=(5,)))
    assert gradient(module, [[-1.0, 0.0, 3.0, 6.0, 7.0]]) == [[0, 0, 1, 0, 0]]  # as ReLU6
    below = OnnxModule(tools.one_node("Clip", np.float32(2), shape=(3,)))
    assert gradient(below, [[1.0, 2.5, 1e9]]) == [[0, 1, 1]]


def test_a_clip_with_crossed_bounds_gives_the_upper_one(tools):
    module = OnnxModule(tools.one_node("Clip", np.float32(3), np.float32(1), shape=(3,)))
    assert module(torch.tensor([[0.0, 2.0, 5.0]])).tolist() == [[1, 1, 1]]


def test_four_bit_weights_are_read(tools):
    codes = np.array([[-8, 7], [3, -1]], dtype=np.int8)
    packed = helper.make_tensor("w4", TensorProto.INT4, codes.shape, codes.reshape(-1).tolist())
    nodes = [
        helper.make_node("DequantizeLinear", ["w4", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = tools.graph_of(nodes, {"scale": HALF}, shape=(2,), opset=21)
    model.graph.initializer.append(packed)
    for mode in ("fast", "exact"):
        assert OnnxModule(model, mode=mode)(torch.tensor([[1.0, 2.0]])).tolist() == [[-1.0, 2.5]]


def test_a_clip_that_something_else_reads_keeps_its_own_gradient(tools):
    nodes = [
        helper.make_node("Clip", ["x", "low"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    constants = {"low": np.float32(0), "scale": HALF, "zero": np.int8(0)}
    module = OnnxModule(tools.graph_of(nodes, constants, shape=(2,)), ste="identity")
    assert gradient(module, [[1.0, -1.0]]) == [[2, 0]]


def test_gradients_reach_float_weights_behind_a_quantizer(tools):
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=0),
        helper.make_node("Gemm", ["x", "d"], ["y"], transB=1),
    ]
    constants = {
        "w": np.array([[0.3, 100.0], [0.3, -0.6]], np.float32),
        "scale": np.array([0.5, 0.25], np.float32),
        "zero": np.zeros(2, np.int8),
    }
    module = OnnxModule(tools.graph_of(nodes, constants, shape=(2,)))
    x = torch.tensor([[1.0, 2.0]])
    assert [name for name, _ in module.named_parameters()] == ["graph/w"]
    for _ in range(2):  # a graph of its own in every call
        module.zero_grad()
        logits = module(x)
        logits.sum().backward()
    assert logits.tolist() == [[0.5 + 2 * 63.5, 0.25 - 2 * 0.5]]
    assert module.initializers["w"].grad.tolist() == [[1, 0], [1, 2]]  # 100 / 0.5 saturates


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numerators=st.lists(st.integers(-1200, 1200), min_size=4, max_size=4),
    scale=st.sampled_from([0.5, 0.25, 1 / 3, 0.1, 0.007]),
    zero=st.integers(0, 255),
)
def test_exact_mode_is_the_kernel_also_on_ties(tools, numerators, scale, zero):
    grid = QParams(scale, zero=zero, low=0, high=255)
    x = np.float32(np.array([numerators]) / 2 * np.float32(scale))
    module = OnnxModule(pair(tools, np.uint8(zero), np.float32(scale), shape=(4,)), mode="exact")
    seen = module.observe(torch.from_numpy(x), ["q"])["q"].numpy()
    assert seen.tolist() == quantize(x, grid).tolist()
    assert module(torch.from_numpy(x)).tolist() == dequantize(seen, grid).astype(np.float32).tolist()


def test_pixels_are_fed_to_a_graph_that_reads_uint8(tools):
    nodes = [helper.make_node("Cast", ["x"], ["real"], to=1), helper.make_node("Relu", ["real"], ["y"])]
    module = OnnxModule(tools.graph_of(nodes, {}, shape=(4,), kind=TensorProto.UINT8))
    assert module(torch.tensor([[0.0, 0.1, 1.0, 1.2]])).tolist() == [[0, 26, 255, 255]]  # 0.1 * 255 = 25.5 to even 26
    assert module(torch.tensor([[0, 26, 255, 1]], dtype=torch.uint8)).tolist() == [[0, 26, 255, 1]]
    assert gradient(module, [[0.1, 0.5, 1.2, -0.1]]) == [[255, 255, 0, 0]]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(tools, scale):
    with pytest.raises(GraphError, match="QuantizeLinear node 'quantizer': scale 'scale' must be positive"):
        OnnxModule(pair(tools, np.int8(0), np.float32(scale)))


def test_blocked_quantization_is_refused_by_name(tools):
    scale, zero = np.ones((2, 3), np.float32), np.zeros((2, 3), np.int8)
    model = pair(tools, zero, scale, shape=(2, 6), opset=21, axis=1, block_size=2)
    with pytest.raises(UnsupportedOperatorError, match="'quantizer': block_size 2"):
        OnnxModule(model)


def test_dynamic_quantization_agrees(tools):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = tools.graph_of(nodes, {}, shape=(5,))
    x = tools.images((5,))
    logits = OnnxModule(model)(torch.from_numpy(x))
    np.testing.assert_allclose(logits.numpy(), tools.unoptimised(model, x), rtol=1e-6)
    with pytest.raises(UnsupportedOperatorError, match="no exact mode"):
        OnnxModule(model, mode="exact")
