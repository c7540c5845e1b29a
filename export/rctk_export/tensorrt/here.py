"""This machine as a plan sees it."""

from __future__ import annotations

from typing import NamedTuple

from rctk_export.tensorrt.api import generation, trt
from rctk_export.tensorrt.cuda_runtime import CudaRuntime, Device, load_cuda
from rctk_export.tensorrt.record import Place, system
from rctk_kernels.errors import EngineUnavailableError


class Here(NamedTuple):
    """A GPU that can be used."""

    cuda: CudaRuntime
    device: Device
    place: Place


def look_around(index: int) -> Here:
    """Return the GPU of that number; :class:`EngineUnavailableError` where TensorRT, CUDA or the GPU is missing."""
    generation()
    cuda = load_cuda()
    count = cuda.device_count()
    if index >= count:
        raise EngineUnavailableError(f"there is no GPU {index}, this machine has {count}; choose with device=0")
    device = cuda.device(index)
    driver, runtime = cuda.versions()
    place = Place(
        tensorrt=str(trt.__version__),
        cuda_runtime=runtime,
        cuda_driver=driver,
        gpu=device.name,
        gpu_uuid=device.uuid,
        compute_capability=device.compute_capability,
        system=system(),
    )
    return Here(cuda, device, place)
