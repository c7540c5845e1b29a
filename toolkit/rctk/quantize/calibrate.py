"""Run images through a float graph and learn the range of every tensor that a plan quantizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
import torch

from rctk.quantize.observer import Calibrator
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import DataError

Ranges = dict[str, tuple[float, float]]
BATCH = 32


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: FloatNCHW,
    calibrator: Calibrator,
    progress: Callable[[int], None] = lambda _: None,
) -> Ranges:
    """Return the range of each tensor over ``images``.

    Args:
        model: Float graph.
        tensors: Names in the graph.
        images: ``(N, C, H, W)`` in [0, 1]; memory does not grow with ``N``.
        calibrator: Makes one observer per tensor.
        progress: Called with the number of images of each finished batch.

    Raises:
        DataError: There is no image.
    """
    if not len(images):
        raise DataError("the calibration set is empty; give --calibration a split with images")
    module = OnnxModule(model)
    observers = {name: calibrator.observer() for name in tensors}
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH])
            for name, values in module.observe(batch, observers).items():
                observers[name].update(values)
            progress(len(batch))
    return {name: observer.range() for name, observer in observers.items()}
