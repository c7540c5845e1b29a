"""Layers take on the sizes of the tensors that they are given."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from rctk.models.resize import adopt


def test_a_weight_that_is_computed_from_others_takes_on_their_sizes():
    layer = weight_norm(nn.Linear(3, 4))
    direction = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0], [-3.0, 4.0]])
    size = torch.tensor([[1.0], [2.0], [3.0], [5.0]])
    adopt(layer, {"parametrizations.weight.original0": size, "parametrizations.weight.original1": direction})
    assert (layer.in_features, layer.out_features) == (2, 4)
    expected = torch.tensor([[0.6, 0.8], [0.0, 2.0], [3.0, 0.0], [-3.0, 4.0]])
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert layer(torch.ones(1, 2)).shape == (1, 4)
    assert {name for name, _ in layer.named_parameters()} >= {"bias", "parametrizations.weight.original1"}
