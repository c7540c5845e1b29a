"""Engines by name. Each is one module that imports its runtime and nothing else heavy."""

from __future__ import annotations

from rctk_export.engine import EngineSettings
from rctk_export.registry import Family

ENGINES: Family[EngineSettings] = Family(
    "engine",
    {
        "onnxruntime": "rctk_export.engines.onnxruntime:OnnxRuntime",
        "onnxruntime-cuda": "rctk_export.engines.onnxruntime_cuda:OnnxRuntimeCuda",
        "onnxruntime-tensorrt": "rctk_export.engines.onnxruntime_tensorrt:OnnxRuntimeTensorRT",
        "onnxruntime-rtx": "rctk_export.engines.onnxruntime_rtx:OnnxRuntimeRtx",
        "openvino": "rctk_export.engines.openvino:OpenVINO",
        "executorch": "rctk_export.engines.executorch:ExecuTorch",
        "torch": "rctk_export.engines.torch:Torch",
        "torch-tensorrt": "rctk_export.engines.torch_tensorrt:TorchTensorRT",
        "twin": "rctk_export.engines.twin:Twin",
        "reference": "rctk_export.engines.reference:Reference",
        "tensorrt": "rctk_export.engines.tensorrt:TensorRT",
        "remote": "rctk_export.engines.remote:Remote",
    },
)
