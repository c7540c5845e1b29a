"""ResNet-18 with a stem for 32x32 images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. https://arxiv.org/abs/1512.03385
The stem is one 3x3 convolution without pooling, as is usual on CIFAR; the paper's own stem is for 224x224.
"""

from __future__ import annotations

from torch import Tensor, nn

from rctk.models.shapes import CIFAR, Shape


class WideBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut called ``shortcut``, as in the common CIFAR weight files."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.shortcut(x)).relu()  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """Four stages of two blocks; 64, 128, 256 and 512 channels."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(WideBlock(64, 64, 1), WideBlock(64, 64, 1))
        self.layer2 = nn.Sequential(WideBlock(64, 128, 2), WideBlock(128, 128, 1))
        self.layer3 = nn.Sequential(WideBlock(128, 256, 2), WideBlock(256, 256, 1))
        self.layer4 = nn.Sequential(WideBlock(256, 512, 2), WideBlock(512, 512, 1))
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.linear(out.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def resnet18(*, classes: int = 10, image_shape: Shape = CIFAR) -> nn.Module:
    """Make ResNet-18 for small images, 11.2 million parameters."""
    return ResNet18(classes, image_shape[0])
