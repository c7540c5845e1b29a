"""Factories for the published networks that our benchmarks and tests use, and where each expects its weights.

``rctk export resnet_4b.pth --arch benchmarks/architectures.py:resnet_4b --input 3x32x32 ...`` shows how any network
comes in: a function that returns a module whose state dict has the keys of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from rctk.models.lenet import lenet5, mnist_cnn
from rctk_export.input_spec import InputSpec


def strided_cnn(channels: int, size: int) -> nn.Sequential:
    """Two 4x4 convolutions of stride 2 and two linear layers, a usual network of certified training."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (size // 4) ** 2, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def cnn_a() -> nn.Module:
    """``cifar_cnn_a_adv.model`` (alpha-beta-CROWN) and ``cifar_wide_kw.pth`` (VNN-COMP 2021)."""
    return strided_cnn(3, 32)


def pgd_madry() -> nn.Module:
    """``pgd_madry.pth`` (locuslab/fast_adversarial)."""
    return strided_cnn(1, 28)


def lenet5_advertorch() -> nn.Module:
    """``lenet5_clntrained.pt`` and ``lenet5_advtrained.pt`` (advertorch); the same as ``--arch mnist-cnn``."""
    return mnist_cnn()


def dns_lenet5() -> nn.Module:
    """``dns_lenet5_*.pth`` (Dynamic Network Surgery); the same as ``--arch lenet5``."""
    return lenet5()


class PlainBlock(nn.Module):
    """A residual block without BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, I, H, W)`` to ``(N, O, H / stride, W / stride)``."""
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


class ResNet4b(nn.Module):
    """Four blocks without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, padding=1)
        self.layer1 = nn.Sequential(PlainBlock(16, 32, 2), PlainBlock(32, 32, 1))
        self.layer2 = nn.Sequential(PlainBlock(32, 32, 2), PlainBlock(32, 32, 1))
        self.linear1 = nn.Linear(512, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""
        x = self.layer2(self.layer1(self.conv1(x).relu()))
        return self.linear2(self.linear1(x.flatten(1)).relu())


def resnet_4b() -> nn.Module:
    """``resnet_4b.pth`` (VNN-COMP 2021)."""
    return ResNet4b()


class ResNet8(nn.Module):
    """MLPerf Tiny's ResNet-8, converted from Keras: images in 0..255, biases, TensorFlow's padding."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((3, 16, 3, 1), (16, 16, 3, 1), (16, 16, 3, 1), (16, 32, 3, 2), (32, 32, 3, 1), (16, 32, 1, 2))
        shapes += ((32, 64, 3, 2), (64, 64, 3, 1), (32, 64, 1, 2))
        for index, (inputs, outputs, kernel, stride) in enumerate(shapes):
            padding = 1 if kernel == 3 and stride == 1 else 0
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, kernel, stride, padding=padding))
        for index, channels in enumerate((16, 16, 16, 32, 32, 64, 64)):
            self.add_module(f"bn{index}", nn.BatchNorm2d(channels, eps=1e-3))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""
        x = self.bn0(self.conv0(x)).relu()
        x = (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()
        main = self.bn4(self.conv4(self.bn3(self.conv3(same_stride_2(x))).relu()))
        x = (main + self.conv5(x)).relu()
        main = self.bn6(self.conv7(self.bn5(self.conv6(same_stride_2(x))).relu()))
        x = (main + self.conv8(x)).relu()
        return self.fc(x.mean(dim=(2, 3)))


def same_stride_2(x: Tensor) -> Tensor:
    """Pad as TensorFlow's SAME does for a 3x3 kernel, stride 2 and an even size: right and bottom only."""
    return F.pad(x, (0, 1, 0, 1))


def resnet8_mlperf() -> nn.Module:
    """``resnet8_mlperf_tiny.pth`` (MLPerf Tiny)."""
    return ResNet8()


class SpatialTransformer(nn.Module):
    """A traffic sign network that first straightens its image with GridSample."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(3, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU()
        )
        self.fc_loc = nn.Sequential(nn.Linear(160, 32), nn.ReLU(), nn.Linear(32, 6))
        self.conv1, self.bn1 = nn.Conv2d(3, 100, 5), nn.BatchNorm2d(100)
        self.conv2, self.bn2 = nn.Conv2d(100, 150, 3), nn.BatchNorm2d(150)
        self.conv3, self.bn3 = nn.Conv2d(150, 250, 3), nn.BatchNorm2d(250)
        self.fc1, self.fc2 = nn.Linear(1000, 350), nn.Linear(350, 43)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, 32, 32)`` to logits ``(N, 43)``."""
        theta = self.fc_loc(self.localization(x).flatten(1)).reshape(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(F.max_pool2d(F.leaky_relu(conv(x)), 2))
        return self.fc2(self.fc1(x.flatten(1)).relu())


def gtsrb_stn() -> nn.Module:
    """``stn_model_40.pth`` (poojahira/gtsrb-pytorch)."""
    return SpatialTransformer()


@dataclass(frozen=True, kw_only=True)
class Net:
    """A published network.

    Attributes:
        file: Below the folder of models.
        arch: Text of ``--arch``.
        input: Shape and normalisation.
        data: Its test set.
        clean_accuracy: Published or measured share on that set (CIFAR-10: its first 1,000 images).
    """

    file: str
    arch: str
    input: InputSpec
    data: str
    clean_accuracy: float


def rgb(mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> InputSpec:
    """Return the input spec of 32x32 colour images."""
    return InputSpec(channels=3, height=32, width=32, mean=mean, std=std)


HERE = str(Path(__file__).resolve())
GREY = InputSpec(channels=1, height=28, width=28)
IMAGENET = rgb((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TORCH_PRUNING = rgb((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR = {"data": "cifar10:test"}
MNIST = {"data": "mnist:test", "input": GREY}

NETS: dict[str, Net] = {
    "resnet20": Net(
        file="cifar10/resnet20-12fca82f.th", arch="resnet20", input=IMAGENET, clean_accuracy=0.915, **CIFAR
    ),
    "resnet56": Net(
        file="cifar10/resnet56-4bfd9763.th", arch="resnet56", input=IMAGENET, clean_accuracy=0.926, **CIFAR
    ),
    "resnet56-dense": Net(
        file="cifar10/resnet56_group_sl_dense.pth",
        arch="resnet56-b",
        input=TORCH_PRUNING,
        clean_accuracy=0.930,
        **CIFAR,
    ),
    "resnet56-pruned": Net(
        file="cifar10/resnet56_group_sl_pruned.pth",
        arch="pruned:resnet56-b",
        input=TORCH_PRUNING,
        clean_accuracy=0.943,
        **CIFAR,
    ),
    "wide-kw": Net(
        file="cifar10/cifar_wide_kw.pth",
        arch=f"{HERE}:cnn_a",
        input=rgb((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
        clean_accuracy=0.636,
        **CIFAR,
    ),
    "cnn-a": Net(
        file="cifar10/cifar_cnn_a_adv.model",
        arch=f"{HERE}:cnn_a",
        input=rgb((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
        clean_accuracy=0.664,
        **CIFAR,
    ),
    "resnet-4b": Net(
        file="cifar10/resnet_4b.pth",
        arch=f"{HERE}:resnet_4b",
        input=rgb((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
        clean_accuracy=0.771,
        **CIFAR,
    ),
    "resnet8": Net(
        file="cifar10/resnet8_mlperf_tiny.pth",
        arch=f"{HERE}:resnet8_mlperf",
        input=rgb(std=(1 / 255,) * 3),
        clean_accuracy=0.881,
        **CIFAR,
    ),
    "mnist-clean": Net(file="mnist/lenet5_clntrained.pt", arch="mnist-cnn", clean_accuracy=0.989, **MNIST),
    "mnist-adv": Net(file="mnist/lenet5_advtrained.pt", arch="mnist-cnn", clean_accuracy=0.986, **MNIST),
    "pgd-madry": Net(file="mnist/pgd_madry.pth", arch=f"{HERE}:pgd_madry", clean_accuracy=0.990, **MNIST),
    "dns-dense": Net(file="mnist/dns_lenet5_original.pth", arch="lenet5", clean_accuracy=0.991, **MNIST),
    "dns-sparse": Net(file="mnist/dns_lenet5_sparse.pth", arch="lenet5", clean_accuracy=0.991, **MNIST),
    "gtsrb-stn": Net(
        file="gtsrb/stn_model_40.pth",
        arch=f"{HERE}:gtsrb_stn",
        input=rgb((0.3337, 0.3064, 0.3171), (0.2672, 0.2564, 0.2629)),
        data="gtsrb:test",
        clean_accuracy=0.997,
    ),
}
"""All networks by a short name."""
