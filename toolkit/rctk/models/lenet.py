"""The two small MNIST networks of the compression and of the robustness literature."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rctk.models.shapes import MNIST, Shape, pooled


class LeNet5(nn.Module):
    """Caffe's LeNet-5: two 5x5 convolutions, each max-pooled, then two linear layers (431,080 parameters on MNIST)."""

    def __init__(
        self, classes: int, image_shape: Shape, widths: tuple[int, int, int], *, conv_relu: bool = False
    ) -> None:
        super().__init__()
        first, second, hidden = widths
        height, width = (pooled(pooled(size - 4) - 4) for size in image_shape[1:])
        self.conv1 = nn.Conv2d(image_shape[0], first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.ip1 = nn.Linear(second * height * width, hidden)
        self.ip2 = nn.Linear(hidden, classes)
        self.conv_relu = conv_relu

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        x = self._pooled(self.conv1(x))
        x = self._pooled(self.conv2(x))
        return self.ip2(self.ip1(x.flatten(1)).relu())  # type: ignore[no-any-return]

    def _pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.relu() if self.conv_relu else x, 2)


class MnistCnn(nn.Module):
    """Two padded 3x3 convolutions with ReLU and max-pooling, then two linear layers."""

    def __init__(self, classes: int, image_shape: Shape) -> None:
        super().__init__()
        height, width = (pooled(pooled(size)) for size in image_shape[1:])
        self.conv1 = nn.Conv2d(image_shape[0], 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * height * width, 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to logits ``(N, K)``."""
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.linear2(self.linear1(x.flatten(1)).relu())  # type: ignore[no-any-return]


def lenet5(
    *,
    classes: int = 10,
    image_shape: Shape = MNIST,
    conv1: int = 20,
    conv2: int = 50,
    hidden: int = 500,
    conv_relu: bool = False,
) -> nn.Module:
    """Make the LeNet-5 that pruning papers mean: Caffe's, 20-50-500, no activation between convolution and pooling.

    The 1998 network had 6-16-120-84 units and other activations; it is not this one.

    Args:
        classes: ``K``.
        image_shape: ``(C, H, W)``; height and width at least 16.
        conv1: Channels of the first convolution.
        conv2: Channels of the second convolution.
        hidden: Units of the hidden linear layer.
        conv_relu: Put a ReLU after each convolution, as many ports to PyTorch do.
    """
    return LeNet5(classes, image_shape, (conv1, conv2, hidden), conv_relu=conv_relu)


def mnist_cnn(*, classes: int = 10, image_shape: Shape = MNIST) -> nn.Module:
    """Make the MNIST network that advertorch trains adversarially, a slim form of Madry's (ICLR 2018)."""
    return MnistCnn(classes, image_shape)
