from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from rctk.data.split import Split

SHAPE = (2, 3, 4)


class ExactLinear:
    """A linear classifier in NumPy whose logits do not depend on how images are batched."""

    def __init__(self, classes: int = 3, seed: int = 0, scale: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.w = (scale * rng.normal(size=(classes, math.prod(SHAPE)))).astype(np.float32)
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        self.batches.append(len(images))
        flat = images.reshape(len(images), -1).astype(np.float64)
        return np.array([[math.fsum((one * row).tolist()) for row in self.w] for one in flat], dtype=np.float32)

    def module(self) -> nn.Module:
        """The same classifier in torch."""
        layer = nn.Linear(self.w.shape[1], len(self.w), bias=False)
        layer.weight.data = torch.from_numpy(self.w.copy())
        return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture
def linear() -> ExactLinear:
    return ExactLinear()


@pytest.fixture
def make_split() -> Callable[..., Split]:
    def make(predict: ExactLinear, count: int = 40, wrong: int = 5, seed: int = 1) -> Split:
        """Random images; the first ``wrong`` of them carry a label that the model does not give."""
        images = np.random.default_rng(seed).uniform(0.2, 0.8, (count, *SHAPE)).astype(np.float32)
        labels = predict(images).argmax(axis=1)
        labels[:wrong] = (labels[:wrong] + 1) % len(predict.w)
        predict.batches.clear()
        return Split(name="random:test", images=images, labels=labels)

    return make
