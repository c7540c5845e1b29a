"""Architectures by name: ours, torchvision's, timm's, or any factory in a Python file or package."""

from __future__ import annotations

from rctk.models.build import ARCHITECTURES, arch_of, build_architecture, built_in, runs_code

__all__ = ["ARCHITECTURES", "arch_of", "build_architecture", "built_in", "runs_code"]
