"""Modules become clean float graphs that compute the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rctk_export.capture import Normalised, capture, run_onnx
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import MismatchError, ModelError

SPEC = InputSpec(channels=3, height=12, width=12, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def shaken(module: nn.Module) -> nn.Module:
    """Give BatchNorm layers statistics that folding cannot ignore."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


class Hard(nn.Module):
    """Padding in front of a strided convolution, BatchNorm behind a pool, mean over the plane, ReLU6, depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 6, 1)
        self.bn3 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.bn1(F.max_pool2d(F.leaky_relu(self.conv1(F.pad(x, (0, 1, 0, 1)))), 2, 1))
        x = F.relu6(self.bn2(self.conv2(x)))
        x = self.conv3(self.bn3(x))
        return self.fc(self.drop(x.mean((2, 3))))


def test_the_graph_computes_what_module_and_normalisation_compute():
    module = shaken(Hard())
    model = capture(module, SPEC)
    images = np.random.default_rng(3).random((7, *SPEC.shape), dtype=np.float32)
    with torch.no_grad():
        expected = Normalised(module, SPEC)(torch.from_numpy(images)).numpy()
    assert np.allclose(run_onnx(model, images), expected, atol=1e-4)


def test_batchnorm_padding_and_dropout_are_gone_and_layers_carry_their_names():
    model = capture(shaken(Hard()), SPEC)
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["Pad"] == ops["Dropout"] == ops["Identity"] == ops["ReduceMean"] == 0
    assert ops["BatchNormalization"] == 1  # bn1 stands before a padded depthwise convolution and cannot move
    assert ops["GlobalAveragePool"] == 1
    assert {"conv1", "conv2", "conv3", "fc"} <= {node.name for node in model.graph.node}


def test_the_batch_is_dynamic_and_the_ends_are_named():
    model = capture(shaken(Hard()), SPEC)
    assert [i.name for i in model.graph.input] == ["images"]
    assert [o.name for o in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert {i.domain: i.version for i in model.opset_import} == {"": 20}


def test_no_path_of_this_machine_is_in_the_file():
    assert b"test_capture.py" not in capture(shaken(Hard()), SPEC).SerializeToString()


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x.flatten(1)
        return -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, 3 * 12 * 12)


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.flatten(1) + 1


@pytest.mark.parametrize(
    ("module", "words"),
    [(Branching(), "control flow"), (FixedBatch(), "batch"), (TwoOutputs(), "2 outputs")],
)
def test_what_cannot_be_captured_is_said_in_one_line_with_a_remedy(module, words):
    with pytest.raises(ModelError, match=words) as caught:
        capture(module.eval(), SPEC)
    assert "\n" not in str(caught.value)


class Restless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        return x.flatten(1)[:, :4] + torch.rand(4)


def test_a_module_that_is_not_repeatable_is_refused():
    with pytest.raises(MismatchError, match="random"):
        capture(Restless().eval(), SPEC)
