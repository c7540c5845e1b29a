import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.train import TrainSettings, draw_weights, train
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="session")
def spec():
    return SPEC


@pytest.fixture(scope="session")
def digits():
    """1437 images to train on and 360 others."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    split = Split(name="digits", images=images, labels=data.target.astype(np.int64))
    rows = np.random.default_rng(0).permutation(len(split))
    return split.take(rows[:1437]), split.take(rows[1437:])


@pytest.fixture(scope="session")
def fresh():
    """Make a net with weights that a seed decides."""

    def make(arch="digits-cnn", seed=0):
        module = build_architecture(arch, classes=10, input=SPEC)
        draw_weights(module, torch.Generator().manual_seed(seed))
        return module

    return make


@pytest.fixture(scope="session")
def run():
    """Train for a few epochs; every setting can be replaced."""

    def call(module, splits, progress=lambda _epoch, _module: None, bars=None, resume=None, **settings):
        settings = {"epochs": 2, "batch_size": 64, "lr": 0.1, "schedule": "cyclic", "accelerator": "cpu"} | settings
        return train(
            module, *splits, TrainSettings(**settings), input=SPEC, progress=progress, bars=bars, resume=resume
        )

    return call
