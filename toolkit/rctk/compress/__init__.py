"""Compression steps by name: training, pruning and distillation of a module, then quantization of its graph."""

from __future__ import annotations

from rctk.compress.step import Step
from rctk_export.registry import Family

STEPS: Family[Step] = Family(
    "step",
    {
        "prune.depgraph": "rctk.prune.depgraph:DepGraph",
        "prune.layers": "rctk.prune.layers:Layers",
        "prune.nm24": "rctk.prune.nm24:Nm24",
        "prune.slimming": "rctk.prune.slimming:Slimming",
        "train.finetune": "rctk.train.finetune:Finetune",
    },
)
