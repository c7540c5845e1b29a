"""The network that stands in for an engine nobody can look into."""

from __future__ import annotations

from torch import nn

from rctk.models import build_architecture
from rctk_export.input_spec import InputSpec

SMALLEST = 8
"""Side below which images are not halved any further."""


def substitute_network(shape: tuple[int, int, int], classes: int, arch: str) -> nn.Module:
    """Make a freshly initialised network for images ``shape`` = ``(C, H, W)`` in [0, 1].

    By default a convolution, then convolutions that halve the image until a side is 8 pixels or fewer, then two linear
    layers. Random numbers come from torch's global generator, as ever in torch.
    """
    if arch:
        plain = InputSpec(channels=shape[0], height=shape[1], width=shape[2])
        return build_architecture(arch, classes=classes, input=plain)
    channels, height, width = 32, *shape[1:]
    layers: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1), nn.ReLU()]
    halved = False
    while not halved or min(height, width) > SMALLEST:
        layers += [nn.Conv2d(channels, min(2 * channels, 64), 3, stride=2, padding=1), nn.ReLU()]
        channels, height, width, halved = min(2 * channels, 64), (height + 1) // 2, (width + 1) // 2, True
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * height * width, 128), nn.ReLU(), nn.Linear(128, classes)
    )
