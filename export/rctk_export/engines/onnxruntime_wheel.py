"""The installed ONNX Runtime: what it raises and which providers its build holds."""

from __future__ import annotations

from rctk_kernels.errors import EngineUnavailableError

try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as errors
except ImportError as error:
    raise EngineUnavailableError(
        "the onnxruntime engine needs ONNX Runtime; install it with `pip install 'rctk[ort]'`"
    ) from error

__all__ = ["CPU", "CUDA", "FAILURES", "LOADING", "ort", "present"]

# Everything ONNX Runtime raises; its exceptions have no base class of their own.
FAILURES: tuple[type[Exception], ...] = tuple(
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
)
LOADING: tuple[type[Exception], ...] = (*FAILURES, RuntimeError, ValueError, OSError)
"""What loading a model or a provider may raise."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def present(provider: str) -> bool:
    """Whether the installed build holds ``provider``; that it also loads, only a session tells."""
    return provider in ort.get_available_providers()
