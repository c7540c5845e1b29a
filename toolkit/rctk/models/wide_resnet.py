"""Wide residual networks, the usual networks of robust training.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016. https://arxiv.org/abs/1605.07146
Names are those of the published robust weight files (``block1.layer.0.convShortcut`` and so on).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from rctk.models.shapes import CIFAR, Shape
from rctk_kernels.errors import OptionError


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a shortcut that changes width starts after the first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        active = self.bn1(x).relu()
        out = self.conv2(self.bn2(self.conv1(active)).relu())
        return out + (x if self.convShortcut is None else self.convShortcut(active))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A row of blocks, of which the first changes width and size."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        rest = (PreActivationBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(PreActivationBlock(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        return self.layer(x)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Three stages of ``16 * widen``, ``32 * widen`` and ``64 * widen`` channels."""

    def __init__(self, depth: int, widen: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.block1 = Stage(blocks, 16, 16 * widen, 1)
        self.block2 = Stage(blocks, 16 * widen, 32 * widen, 2)
        self.block3 = Stage(blocks, 32 * widen, 64 * widen, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        out = self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))).relu()
        return self.fc(out.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def wide_resnet(*, classes: int = 10, image_shape: Shape = CIFAR, depth: int = 28, widen: int = 4) -> nn.Module:
    """Make a wide residual network without dropout.

    Args:
        classes: ``K``.
        image_shape: ``(C, H, W)``.
        depth: Layers, 6n + 4.
        widen: Factor on the channels of the three stages.
    """
    if depth < 10 or depth % 6 != 4 or widen < 1:
        raise OptionError(f"a wide ResNet has 6n + 4 layers and widen >= 1; got depth={depth} and widen={widen}")
    return WideResNet(depth, widen, classes, image_shape[0])


wrn_28_4 = partial(wide_resnet, depth=28, widen=4)
