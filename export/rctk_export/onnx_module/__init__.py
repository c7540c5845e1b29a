"""An ONNX classifier graph as a differentiable torch module."""

from __future__ import annotations

from rctk_export.onnx_module.module import OnnxModule

__all__ = ["OnnxModule"]
