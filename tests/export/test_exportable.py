"""The exportable form of an int8 file: the same function as the twin, in operators that torch.export keeps."""

import numpy as np
import pytest

from rctk_kernels.errors import UnsupportedOperatorError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rctk_export.exportable import ExportableModule  # noqa: E402
from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_export.quantize_operators import Decomposed, Grid  # noqa: E402


def model(nodes, constants, *, shape=("N", 2, 4, 4), classes=3):
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))
    end = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "int8", [entry], [end], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def pair(name, kind):
    """Nodes name -> name.q -> name.dq on the grid ``kind.scale``, ``kind.zero``."""
    grid = [f"{kind}.scale", f"{kind}.zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *grid], [f"{name}.q"]),
        helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [f"{name}.dq"]),
    ]


def weight(name):
    inputs = [f"{name}.codes", f"{name}.scale", f"{name}.zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], axis=0)


ZERO = np.uint8(3)


def residual(*, zero=ZERO):
    """Convolution, residual add, pooling and a linear layer whose scales are powers of two, so float32 is exact."""
    rng = np.random.default_rng(0)
    constants = {
        "in.scale": np.float32(2**-6),
        "in.zero": zero,
        "w.codes": rng.integers(-127, 128, (2, 2, 3, 3)).astype(np.int8),
        "w.scale": np.float32([2**-7, 2**-8]),
        "w.zero": np.zeros(2, np.int8),
        "b.codes": rng.integers(-900, 900, 2).astype(np.int32),
        "b.scale": np.float32([2**-13, 2**-14]),
        "b.zero": np.zeros(2, np.int32),
        "mid.scale": np.float32(2**-5),
        "mid.zero": zero,
        "v.codes": rng.integers(-127, 128, (3, 8)).astype(np.int8),
        "v.scale": np.float32([2**-7, 2**-6, 2**-8]),
        "v.zero": np.zeros(3, np.int8),
    }
    nodes = [
        *pair("images", "in"),
        *[weight(name) for name in "wbv"],
        helper.make_node("Conv", ["images.dq", "w.dq", "b.dq"], ["conv"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        *pair("relu", "mid"),
        helper.make_node("Add", ["relu.dq", "images.dq"], ["sum"]),
        *pair("sum", "mid"),
        helper.make_node("MaxPool", ["sum.dq"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        *pair("flat", "mid"),
        helper.make_node("Gemm", ["flat.dq", "v.dq"], ["logits"], transB=1),
    ]
    return model(nodes, constants)


def images(count=20, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(0.5, 0.7, (count, 2, 4, 4)).astype(np.float32))


@pytest.mark.parametrize("zero", [np.uint8(3), np.uint8(0), np.int8(0), np.int8(-5)], ids=str)
@pytest.mark.parametrize("whole", [False, True])
def test_exportable_form_equals_the_twin_bit_for_bit_where_float32_is_exact(zero, whole):
    file = residual(zero=zero)
    logits = ExportableModule(file, images(1), Decomposed(), whole=whole)(images())
    assert torch.equal(logits, OnnxModule(file)(images()))
    assert logits.unique().numel() > 10


def test_weights_stored_as_float_become_the_codes_that_they_round_to():
    file = residual(zero=np.int8(0))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    codes, scale = stored.pop("w.codes"), stored["w.scale"]
    stored["w"] = codes * scale.reshape(-1, 1, 1, 1) + np.float32(2**-11)  # an eighth or a quarter of a step beside it
    nodes = [helper.make_node("QuantizeLinear", ["w", "w.scale", "w.zero"], ["w.codes"], axis=0), *file.graph.node]
    module = ExportableModule(model(nodes, stored), images(1), Decomposed())
    assert torch.equal(module(images()), OnnxModule(file)(images()))
    held = {tuple(buffer.shape): buffer for buffer in module.buffers() if buffer.dtype == torch.int8}
    assert np.array_equal(held[2, 2, 3, 3].numpy(), codes)


def targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_exported_program_holds_pairs_of_which_each_dequantizer_has_one_reader():
    module = ExportableModule(residual(), images(1), Decomposed()).eval()
    program = torch.export.export(module, (images(1),))
    found = targets(program)
    assert found.count("quantized_decomposed.quantize_per_tensor.default") == 4
    assert found.count("quantized_decomposed.dequantize_per_tensor.default") == 5  # the images are read twice
    assert found.count("quantized_decomposed.dequantize_per_channel.default") == 2
    dequantizers = [node for node in program.graph.nodes if "dequantize_per" in str(node.target)]
    assert all(len(node.users) == 1 for node in dequantizers)
    assert torch.equal(program.module()(images(1)), module(images(1)))


def test_where_a_layer_must_be_whole_only_the_linear_one_that_ends_in_float_gets_float_weights():
    program = torch.export.export(
        ExportableModule(residual(), images(1), Decomposed(), whole=True).eval(), (images(1),)
    )
    assert targets(program).count("quantized_decomposed.dequantize_per_channel.default") == 1


def test_quantizers_meet_grids_of_int8():
    class Noted(Decomposed):
        def __init__(self):
            super().__init__()
            self.grids = []

        def quantize(self, x, grid):
            self.grids.append(grid)
            return super().quantize(x, grid)

    noted = Noted()
    ExportableModule(residual(), images(1), noted)(images(1))
    assert noted.grids[0] == Grid(scale=2**-6, zero=3 - 128, axis=None, low=-128, high=127)


def test_uint8_weights_with_zero_points_of_their_channels_move_to_int8():
    file = residual()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    stored["w.codes"] = (stored["w.codes"].astype(np.int16) + 128).astype(np.uint8)
    stored["w.zero"] = np.uint8([128, 120])
    changed = model(file.graph.node, stored)
    module = ExportableModule(changed, images(1), Decomposed())
    assert torch.equal(module(images()), OnnxModule(changed)(images()))


def test_sizes_that_the_graph_computes_become_constants():
    file = residual()
    nodes = [node for node in file.graph.node if node.op_type != "Flatten"]
    at = next(i for i, node in enumerate(nodes) if node.op_type == "MaxPool") + 1
    nodes[at:at] = [
        helper.make_node("Shape", ["pool"], ["shape"], end=1),
        helper.make_node("Concat", ["shape", "rest"], ["goal"], axis=0),
        helper.make_node("Reshape", ["pool", "goal"], ["flat"]),
    ]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    changed = model(nodes, stored | {"rest": np.int64([-1])})
    module = ExportableModule(changed, images(20), Decomposed()).eval()
    assert torch.equal(module(images()), OnnxModule(changed)(images()))
    assert "reshape" in " ".join(targets(torch.export.export(module, (images(20),))))


@pytest.mark.parametrize(("zero", "reason"), [(np.uint16(7), "UINT16 do not fit")])
def test_wider_codes_are_refused(zero, reason):
    with pytest.raises(UnsupportedOperatorError, match=reason):
        ExportableModule(residual(zero=zero), images(1), Decomposed())


def test_computing_on_codes_is_refused():
    file = residual()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    nodes = list(file.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.op_type == "DequantizeLinear" and node.input[0] == "sum.q")
    nodes[at].input[0] = "pooled.q"
    nodes.insert(at, helper.make_node("MaxPool", ["sum.q"], ["pooled.q"], kernel_shape=[1, 1]))
    with pytest.raises(UnsupportedOperatorError, match=r"computes on the codes 'sum.q'"):
        ExportableModule(model(nodes, stored), images(1), Decomposed())
