"""Honest nets and planted cases of gradient masking, all on digits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rctk.audit import Examined
from rctk.data import read_split
from rctk.threat import ThreatModel

EPS = 0.1


class Net(nn.Module):
    def __init__(self, activation=F.relu) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 100), nn.Linear(100, 10)
        self.activation = activation

    def forward(self, x):
        return self.second(self.activation(self.first(x.flatten(1))))


def fit(net, steps=200, temperature=1.0, eps=0.0):
    """Train on digits; with ``eps`` on one-step adversarial images from a random start, with temperature distilled."""
    generator = torch.Generator().manual_seed(0)
    train = read_split("digits:train")
    x, y = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=generator)[:256]
        batch, labels = x[rows], y[rows]
        if eps:
            start = batch + eps * (2 * torch.rand(batch.shape, generator=generator) - 1)
            leaf = start.clamp(0, 1).requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(net(leaf), labels), leaf)
            moved = leaf.detach() + 1.25 * eps * slope.sign()
            batch = torch.maximum(torch.minimum(moved, batch + eps), batch - eps).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(net(batch) / temperature, labels).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="session")
def plain():
    torch.manual_seed(0)
    return fit(Net())


@pytest.fixture(scope="session")
def robust():
    torch.manual_seed(0)
    return fit(Net(), steps=400, eps=EPS)


@pytest.fixture(scope="session")
def distilled():
    """Trained at temperature 100 and used at 1, as in defensive distillation."""
    torch.manual_seed(0)
    return fit(Net(), steps=300, temperature=100.0)


class Sign(torch.autograd.Function):
    """The sign, with a straight-through gradient for training."""

    @staticmethod
    def forward(_ctx, x):
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(_ctx, gradient):
        return gradient


@pytest.fixture(scope="session")
def sign_net():
    """Binary activations whose surrogate gradient was taken away after training."""
    torch.manual_seed(0)
    net = fit(Net(activation=Sign.apply))
    net.activation = torch.sign
    return net


@pytest.fixture(scope="session")
def split():
    return read_split("digits:test", samples=150)


@pytest.fixture
def examine(split):
    """Make the subject of an audit from a module."""

    def make(module, *, eps=EPS, parent=None, model=None):
        def predict(images):
            with torch.no_grad():
                return module(torch.from_numpy(images)).numpy()

        threat = ThreatModel(eps=eps)
        return Examined(
            name="engine" if parent else "float",
            predict=predict,
            model=module if model is None else model,
            split=split,
            threat=threat,
            parent=parent,
        )

    return make
