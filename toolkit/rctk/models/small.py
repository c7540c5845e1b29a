"""Networks small enough to train in seconds."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from rctk.models.shapes import DIGITS, MNIST, Shape
from rctk_kernels.errors import OptionError


def digits_cnn(*, classes: int = 10, image_shape: Shape = DIGITS, channels: int = 32) -> nn.Module:
    """Make the network of the demonstration: two 3x3 convolutions and two linear layers.

    With the defaults it has 76,522 parameters and needs 0.4 million multiply-accumulates for an 8x8 image.

    Args:
        classes: ``K``.
        image_shape: ``(C, H, W)``.
        channels: Of both convolutions.
    """
    height, width = ((size + 1) // 2 for size in image_shape[1:])  # the second convolution takes every other pixel
    return nn.Sequential(
        nn.Conv2d(image_shape[0], channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * height * width, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def mlp(*, classes: int = 10, image_shape: Shape = MNIST, hidden: int = 256, layers: int = 2) -> nn.Module:
    """Make a multilayer perceptron on the flattened image.

    Args:
        classes: ``K``.
        image_shape: ``(C, H, W)``.
        hidden: Units of each hidden layer.
        layers: Hidden layers, each followed by a ReLU.
    """
    if hidden < 1 or layers < 0:
        raise OptionError(f"mlp needs hidden >= 1 and layers >= 0, got hidden={hidden} and layers={layers}")
    channels, height, width = image_shape
    sizes = [channels * height * width] + [hidden] * layers
    stack: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        stack += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*stack, nn.Linear(sizes[-1], classes))
