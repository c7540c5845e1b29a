"""Residual networks of 6n+2 layers for 32x32 images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rctk.models.shapes import CIFAR, Shape
from rctk_kernels.errors import OptionError

Shortcut = Literal["padded", "projection"]


class PaddedShortcut(nn.Module):
    """The paper's option A: every second pixel, and zero channels on both sides. It has no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.padding = [0, 0, 0, 0, before, outputs - inputs - before]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the paper's option B: a 1x1 convolution and BatchNorm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            make = PaddedShortcut if shortcut == "padded" else projection
            self.downsample = make(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.downsample(x)).relu()  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels. The classifier is called ``linear`` with option A and ``fc`` with B.

    These are the names in the published weight files of either kind.
    """

    def __init__(self, depth: int, shortcut: Shortcut, classes: int, channels: int) -> None:
        super().__init__()
        blocks = depth // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1, shortcut, blocks)
        self.layer2 = stage(16, 32, 2, shortcut, blocks)
        self.layer3 = stage(32, 64, 2, shortcut, blocks)
        classifier = nn.Linear(64, classes)
        self.linear = classifier if shortcut == "padded" else nn.Identity()
        self.fc = classifier if shortcut == "projection" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(self.linear(out.mean(dim=(2, 3))))  # type: ignore[no-any-return]


def stage(inputs: int, outputs: int, stride: int, shortcut: Shortcut, blocks: int) -> nn.Sequential:
    """Return ``blocks`` blocks, of which the first changes width and size."""
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))


def cifar_resnet(
    *, classes: int = 10, image_shape: Shape = CIFAR, depth: int = 20, shortcut: Shortcut = "padded"
) -> nn.Module:
    """Make a residual network of 6n + 2 layers for small images; with ``-b``, shortcuts are projections.

    Args:
        classes: ``K``.
        image_shape: ``(C, H, W)``.
        depth: Layers, 6n + 2.
        shortcut: ``padded`` (option A) or ``projection`` (option B).
    """
    if depth < 8 or depth % 6 != 2:
        raise OptionError(f"a CIFAR ResNet has 6n + 2 layers, such as 20, 32, 44 or 56; got depth={depth}")
    return CifarResNet(depth, shortcut, classes, image_shape[0])


resnet20 = partial(cifar_resnet, depth=20)
resnet32 = partial(cifar_resnet, depth=32)
resnet44 = partial(cifar_resnet, depth=44)
resnet56 = partial(cifar_resnet, depth=56)
resnet20_b = partial(cifar_resnet, depth=20, shortcut="projection")
resnet32_b = partial(cifar_resnet, depth=32, shortcut="projection")
resnet44_b = partial(cifar_resnet, depth=44, shortcut="projection")
resnet56_b = partial(cifar_resnet, depth=56, shortcut="projection")
