"""VGG-16 with BatchNorm for 32x32 images.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
https://arxiv.org/abs/1409.1556 . On CIFAR its three linear layers are usually one, as here.
"""

from __future__ import annotations

from torch import Tensor, nn

from rctk.models.shapes import CIFAR, Shape, pooled

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage; a 2x2 max-pooling ends a stage."""


class Vgg16Bn(nn.Module):
    """Thirteen 3x3 convolutions in ``features`` and one linear ``classifier``."""

    def __init__(self, classes: int, image_shape: Shape) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for outputs, count in STAGES:
            for _ in range(count):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
            height, width = pooled(height), pooled(width)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def vgg16_bn(*, classes: int = 10, image_shape: Shape = CIFAR) -> nn.Module:
    """Make VGG-16 with BatchNorm for small images, 14.7 million parameters."""
    return Vgg16Bn(classes, image_shape)
