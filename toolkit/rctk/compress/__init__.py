"""Compression steps by name: training, pruning and distillation of a module, then quantization of its graph."""

from __future__ import annotations

from rctk.compress.step import Step
from rctk_export.registry import Family

STEPS: Family[Step] = Family("step", {})
