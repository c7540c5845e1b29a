from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rctk.data.split import Split


class Digits(NamedTuple):
    """Two small nets trained on real digits, and 100 images that they did not see."""

    plain: nn.Module
    robust: nn.Module
    split: Split


def small_net(generator: torch.Generator) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    for parameter in net.parameters():
        bound = 1 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.05
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return net


def trained(x: Tensor, y: Tensor, *, eps: float, epochs: int) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = small_net(generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(100):
            batch = x[rows]
            if eps:
                delta = (eps * (2 * torch.rand(batch.shape, generator=generator) - 1)).requires_grad_()
                (slope,) = torch.autograd.grad(F.cross_entropy(net(batch + delta), y[rows]), delta)
                batch = (batch + (delta.detach() + 1.25 * eps * slope.sign()).clamp(-eps, eps)).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(net(batch), y[rows]).backward()
            optimizer.step()
    net.zero_grad()
    return net.eval()


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = load_digits()
    images, labels = (data.images / 16).astype(np.float32)[:, None], data.target.astype(np.int64)
    x, y = torch.from_numpy(images[:1400]), torch.from_numpy(labels[:1400])
    return Digits(
        plain=trained(x, y, eps=0, epochs=6),
        robust=trained(x, y, eps=0.15, epochs=12),
        split=Split(name="digits:test", images=images[1400:1500], labels=labels[1400:1500]),
    )


@pytest.fixture
def predict_with() -> Callable[[nn.Module], Callable[[np.ndarray], np.ndarray]]:
    def wrap(model: nn.Module):
        def predict(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return model(torch.from_numpy(images)).numpy()

        return predict

    return wrap
