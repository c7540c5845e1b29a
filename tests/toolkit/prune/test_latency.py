"""Pruning by the time of the engine that ships."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.compress import STEPS

pytest.importorskip("onnxruntime")


def make(width):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 10),
        ).eval()


def test_channels_go_until_the_engine_is_twice_as_fast(context):
    module = make(128)
    STEPS.build("prune.depgraph:by=latency,ratio=0.5,round_to=64,min_channels=64,scope=local")(module, context)
    assert module[2].out_channels == 64
    tried = [note for note in context.progress.notes if "of the dense time" in note]
    assert len(tried) == 2  # the narrowest and the whole network; every choice is timed once
