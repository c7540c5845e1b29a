"""Initial weights from a generator of our own."""

from __future__ import annotations

import math

import torch
from torch import nn


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions and linear layers anew and reset BatchNorm, so that a seed decides the start.

    torch draws initial weights from its global generator; these come from ``generator`` and from the same distribution:
    uniform within one over the square root of the inputs. What has other kinds of parameters keeps them.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
