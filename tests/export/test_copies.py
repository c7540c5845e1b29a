"""A gather that only copies is dropped, and no other one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from rctk_export.capture import capture, run_onnx
from rctk_export.input_spec import InputSpec
from rctk_export.simplify import simplify

SPEC = InputSpec(channels=3, height=4, width=4)


class ChannelsLast(nn.Module):
    """Pools a tensor whose channels lie last in memory, as ConvNeXt does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 2, 2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        tokens = F.gelu(self.conv(x).permute(0, 2, 3, 1).contiguous())
        return self.fc(F.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), 1).flatten(1))


def strided(places: np.ndarray, *, size: int = 4, begin: int = 0) -> onnx.ModelProto:
    """Return a graph that reads its flat input ``(batch, 4, 1, 1)`` at ``number * size + places``."""
    constants = {"flat": [-1], "begin": begin, "one": 1, "size": size, "axes": [1, 2, 3]}
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
        helper.make_node("Squeeze", ["shape"], ["count"]),
        helper.make_node("Relu", ["images"], ["x"]),
        helper.make_node("Reshape", ["x", "flat"], ["values"]),
        helper.make_node("Range", ["begin", "count", "one"], ["numbers"]),
        helper.make_node("Mul", ["numbers", "size"], ["starts"]),
        helper.make_node("Unsqueeze", ["starts", "axes"], ["wide"]),
        helper.make_node("Add", ["wide", "places"], ["indices"]),
        helper.make_node("Gather", ["values", "indices"], ["copy"]),
        helper.make_node("Neg", ["copy"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    ends = [info(name, onnx.TensorProto.FLOAT, ["batch", 4, 1, 1]) for name in ("images", "logits")]
    tensors.append(numpy_helper.from_array(places.astype(np.int64), "places"))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_pooling_of_channels_that_lie_last_is_a_pool_and_nothing_else():
    model = capture(ChannelsLast().eval(), SPEC)
    assert operators(model) == ["Conv", "Transpose", "Gelu", "Transpose", "GlobalAveragePool", "Reshape", "Gemm"]
    assert run_onnx(model, torch.rand(5, 3, 4, 4).numpy()).shape == (5, 3)


class TokenNorm(nn.Module):
    """A linear layer on tokens with a BatchNorm behind it, as LeViT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.bn, self.head = (
            nn.Conv2d(3, 6, 2, 2),
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        tokens = self.fc(self.conv(x).flatten(2).transpose(1, 2))
        return self.head(self.bn(tokens.flatten(0, 1)).reshape_as(tokens).relu().mean(1))


def test_a_batchnorm_of_tokens_folds_into_their_layer():
    module = TokenNorm().eval()
    nn.init.uniform_(module.bn.running_mean)
    nn.init.uniform_(module.bn.weight)
    found = operators(capture(module, SPEC))  # which compares it with torch
    assert "BatchNormalization" not in found
    assert found.count("Reshape") == 3  # pixels to tokens, to rows, and back


def test_a_gather_of_every_value_in_its_order_is_dropped():
    assert operators(simplify(strided(np.arange(4).reshape(4, 1, 1)))) == ["Relu", "Neg"]


@pytest.mark.parametrize(
    ("places", "settings"),
    [([0, 1, 3, 2], {}), ([0, 1, 2, 2], {}), ([0, 1, 2, 3], {"size": 0}), ([0, 1, 2, 3], {"begin": -1})],
)
def test_a_gather_that_moves_values_stays(places, settings):
    assert "Gather" in operators(simplify(strided(np.array(places).reshape(4, 1, 1), **settings)))
