from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rctk.checkpoint import save_checkpoint
from rctk.data import read_split
from rctk_export.input_spec import InputSpec


class Small(nn.Module):
    """A residual net for digits; an architecture that a user keeps in a file of his own."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = F.max_pool2d(F.relu(self.conv(x) + x), 2)
        return self.fc(x.flatten(1))


@pytest.fixture(scope="session")
def digits_train():
    return read_split("digits:train")


@pytest.fixture(scope="session")
def digits_test():
    return read_split("digits:test")


@pytest.fixture(scope="session")
def small_net(digits_train):
    """A net that has learnt enough for accuracies to mean something."""
    torch.manual_seed(0)
    module = Small()
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    x, y = torch.from_numpy(digits_train.images), torch.from_numpy(digits_train.labels)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(module((x[rows] - 0.3) / 0.4), y[rows]).backward()
            optimizer.step()
    return module.eval()


@pytest.fixture(scope="session")
def spec():
    return InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="session")
def mlp_checkpoint(tmp_path_factory, spec):
    """An rctk checkpoint of a built-in architecture."""
    from rctk.models import build_architecture
    from rctk.train import draw_weights

    module = build_architecture("mlp", classes=10, input=spec)
    draw_weights(module, torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("models") / "mlp.pt"
    save_checkpoint(path, module.eval(), arch="mlp", input=spec, classes=tuple("0123456789"))
    return path
