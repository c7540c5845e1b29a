"""Option-A shortcuts are convolutions after simplification, and select the same values."""

from __future__ import annotations

import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.input_spec import InputSpec
from rctk_export.shortcut import selects

SPEC = InputSpec(channels=3, height=9, width=8)
"""An odd height: a step of 2 then takes five rows."""


class OptionA(nn.Module):
    def __init__(self, skip, pads=(0, 0, 0, 0, 1, 2), value=0.0):
        super().__init__()
        self.skip, self.pads, self.value = skip, pads, value
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x) + F.pad(self.skip(x), self.pads, value=self.value)
        return self.fc(x.mean(dim=(2, 3)))


def captured(module):
    torch.manual_seed(0)
    return capture(module.eval(), SPEC)


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_slices_and_pad_become_one_convolution_that_selects():
    model = captured(OptionA(lambda x: x[:, :, ::2, ::2]))  # capture compares the outputs with torch's
    assert sorted(operators(model)) == ["Add", "Conv", "Conv", "Flatten", "Gemm", "GlobalAveragePool"]
    graph = Graph(model)
    (shortcut,) = [node for node in graph.nodes if selects(graph, node)]
    rows = graph.constants[shortcut.input[1]][:, :, 0, 0]
    assert rows.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "module",
    [
        OptionA(lambda x: x[:, :, 1::2, ::2], pads=(0, 0, 0, 1, 1, 2)),
        OptionA(lambda x: x[:, :, :9:2, ::2], value=1.0),
        OptionA(lambda x: x[:, :, :8:2, ::2], pads=(0, 0, 0, 1, 1, 2)),
    ],
    ids=["starts at 1", "pads with ones", "stops early"],
)
def test_what_does_more_than_select_keeps_its_slices(module):
    model = captured(module)
    assert "Pad" in operators(model)
    graph = Graph(model)
    assert not any(selects(graph, node) for node in graph.nodes)


def test_many_channels_are_cheaper_to_copy():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 129, 1)
            self.fc = nn.Linear(131, 4)

        def forward(self, x):
            return self.fc(F.pad(self.stem(x)[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)).mean(dim=(2, 3)))

    assert "Pad" in operators(captured(Wide()))


def test_a_convolution_with_other_weights_selects_nothing():
    model = captured(OptionA(lambda x: x[:, :, ::2, ::2]))
    graph = Graph(model)
    (shortcut,) = [node for node in graph.nodes if selects(graph, node)]
    name = shortcut.input[1]
    for change in ((0, 0, 0.5), (1, 1, 1.0)):
        changed = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()
        changed[change[0], change[1]] = change[2]
        graph.constants[name] = changed
        assert not selects(graph, shortcut)
