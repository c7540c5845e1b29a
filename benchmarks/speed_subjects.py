"""Networks and calibration images for benchmarks of speed, with real weights and images where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from architectures import IMAGENET, NETS
from torch import nn

from rctk.checkpoint import load_model
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.train import draw_weights
from rctk_export.input_spec import FloatNCHW

CHECK = 500
"""Images on which a file's classes are compared with the float file's and with the labels."""


def calibration_split(samples: int) -> Split:
    """Return training images of CIFAR-10, or random ones."""
    return _split("train", samples)


def check_split() -> Split:
    """Return ``CHECK`` test images of CIFAR-10, or random ones that all have the label 0."""
    return _split("test", CHECK)


def _split(part: str, samples: int) -> Split:
    if os.environ.get("RCTK_DATA"):
        return read_split(f"cifar10:{part}", samples=samples)
    images = np.random.default_rng(len(part)).random((samples, *IMAGENET.shape), dtype=np.float32)
    rows = np.arange(len(images))
    return Split(name="random", images=images, labels=rows * 0, classes=(), indices=rows)


def module_of(name: str, images: FloatNCHW) -> tuple[nn.Module, str]:
    """Return a network and where its weights come from."""
    folder = os.environ.get("RCTK_MODELS")
    if folder and name in NETS:
        net = NETS[name]
        return load_model(Path(folder) / net.file, arch=net.arch, input=net.input).module, "published"
    generator = torch.Generator().manual_seed(0)
    module = build_architecture(name, classes=10, input=IMAGENET)
    draw_weights(module, generator)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics of the pass below, and no others
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
    mean, std = (torch.from_numpy(array) for array in IMAGENET.mean_std())
    with torch.no_grad():
        module.train()((torch.from_numpy(images) - mean) / std)
    return module.eval(), "drawn"
