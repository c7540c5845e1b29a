"""What all engines on TensorRT share: batches of a profile, files they refuse, and what a file holds."""

from __future__ import annotations

from pathlib import Path

from rctk_export.batching import End
from rctk_export.bundle import file_sha256
from rctk_export.engine import Source
from rctk_export.tensorrt.options import MAX_BATCH
from rctk_kernels.errors import EngineError, OptionError

UINT8_TARGETS = frozenset({"cpu", "openvino", "cpu-mirror"})
LINEARS = (b"QuantizeLinear", b"DequantizeLinear")


def check_batches(low: int, tuned: int, high: int) -> None:
    """Raise :class:`OptionError` unless 1 <= low <= tuned <= high."""
    if not 1 <= low <= tuned <= high <= MAX_BATCH:
        raise OptionError(
            f"batches must be 1 <= min_batch <= opt_batch <= max_batch <= {MAX_BATCH}, got {low}, {tuned}, {high}"
        )


def check_graph(low: int, high: int, *, cuda_graph: bool) -> None:
    """Raise :class:`OptionError` where a CUDA graph is wanted for more than one batch size."""
    if cuda_graph and low != high:
        raise OptionError(
            f"a CUDA graph is recorded for one batch size, got {low} to {high}; give min_batch, opt_batch and "
            "max_batch the same number"
        )


def check_target(source: Source) -> None:
    """Raise :class:`EngineError` for files whose activations are uint8."""
    if source.target in UINT8_TARGETS:
        raise EngineError(
            f"{source.path.name} has uint8 activations, and TensorRT takes int8 around 0 only; use the file for "
            "--target tensorrt"
        )


def quantized(path: Path) -> bool:
    """Whether an ONNX file holds Q or DQ; reads the names of operators out of its bytes, without the onnx package."""
    content = path.read_bytes()
    return any(name in content for name in LINEARS)


def shapes(entry: End, sizes: tuple[int, ...], batches: tuple[int, int, int], prefix: str) -> dict[str, str]:
    """Return the options that set the optimization profile; none for a graph of fixed batch.

    Args:
        entry: Input of the graph.
        sizes: ``(C, H, W)``.
        batches: Fewest, tuned-for and most images.
        prefix: ``trt`` or ``nv``.

    Example:
        >>> shapes(End("images", "float32", (None, 3, 8, 8)), (3, 8, 8), (1, 4, 16), "trt")["trt_profile_max_shapes"]
        'images:16x3x8x8'
    """
    if entry.batch is not None:
        return {}
    return {
        f"{prefix}_profile_{which}_shapes": f"{entry.name}:{'x'.join(map(str, (count, *sizes)))}"
        for which, count in zip(("min", "opt", "max"), batches, strict=True)
    }


def digest(source: Source) -> str:
    """Return the hash of the file that is there now."""
    return file_sha256(source.path)
