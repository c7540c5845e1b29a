from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from rctk_export.tensorrt import cuda_runtime
from rctk_export.tensorrt.cuda_runtime import CudaError, CudaRuntime, candidates, load_cuda, pinned_array
from rctk_kernels.errors import EngineUnavailableError


@pytest.fixture
def library(install):
    return install("10.3.0").cuda


@pytest.fixture
def cuda(library):
    return CudaRuntime(library)


def test_a_device_is_described(cuda):
    device = cuda.device(0)
    assert (device.name, device.compute_capability, device.integrated) == ("Orin", "8.7", True)
    assert device.uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert device.free_bytes == device.total_bytes == 1 << 30


def test_the_current_device_is_put_back_also_after_an_error(cuda, library):
    library.fail["cudaMalloc"] = 2
    with pytest.raises(CudaError), cuda.on(2):
        cuda.allocate(library.current)
    assert library.calls.count("cudaSetDevice") == 2
    assert library.current == 0
    library.calls.clear()
    with cuda.on(0):
        pass
    assert "cudaSetDevice" not in library.calls


def test_a_failed_call_names_itself_the_error_and_a_step(cuda, library):
    library.fail["cudaMalloc"] = 2
    with pytest.raises(
        CudaError, match=r"cudaMalloc: cudaErrorMemoryAllocation \(out of memory\); .*smaller batch"
    ) as e:
        cuda.allocate(10)
    assert e.value.code == 2
    assert library.calls[-1] == "cudaGetErrorString"
    assert "cudaGetLastError" in library.calls  # the next call starts clean


EVERY_CALL = [
    ("cudaGetDeviceCount", lambda c: c.device_count()),
    ("cudaDriverGetVersion", lambda c: c.versions()),
    ("cudaRuntimeGetVersion", lambda c: c.versions()),
    ("cudaGetDeviceProperties", lambda c: c.device(0)),
    ("cudaDeviceGetAttribute", lambda c: c.device(0)),
    ("cudaMemGetInfo", lambda c: c.memory()),
    ("cudaHostAlloc", lambda c: c.allocate_pinned(1)),
    ("cudaFree", lambda c: c.free(1)),
    ("cudaFreeHost", lambda c: c.free_pinned(1)),
    ("cudaMemcpyAsync", lambda c: c.copy_to_device(1, 2, 3, 4)),
    ("cudaMemcpyAsync", lambda c: c.copy_to_host(1, 2, 3, 4)),
    ("cudaStreamCreateWithFlags", lambda c: c.create_stream()),
    ("cudaStreamSynchronize", lambda c: c.synchronize(1)),
    ("cudaStreamDestroy", lambda c: c.destroy_stream(1)),
    ("cudaStreamBeginCapture", lambda c: c.begin_capture(1)),
    ("cudaStreamEndCapture", lambda c: c.end_capture(1)),
    ("cudaGraphLaunch", lambda c: c.launch(1, 2)),
    ("cudaGraphExecDestroy", lambda c: c.destroy_graph(1)),
    ("cudaEventCreate", lambda c: c.create_event()),
    ("cudaEventRecord", lambda c: c.record(1, 2)),
    ("cudaEventSynchronize", lambda c: c.elapsed_ms(1, 2)),
    ("cudaEventElapsedTime", lambda c: c.elapsed_ms(1, 2)),
    ("cudaEventDestroy", lambda c: c.destroy_event(1)),
]


@pytest.mark.parametrize(("name", "call"), EVERY_CALL)
def test_no_return_code_is_overlooked(cuda, library, name, call):
    library.fail[name] = 700
    with pytest.raises(CudaError, match=f"{name}: cudaErrorUnknown"):
        call(cuda)


def test_work_is_done_when_somebody_waits(cuda, library):
    stream, host, device = cuda.create_stream(), cuda.allocate_pinned(16), cuda.allocate(16)
    there, back = pinned_array(host, (4,), "float32"), np.zeros(4, np.float32)
    there[:] = [1, 2, 3, 4]
    cuda.copy_to_device(device, host, 16, stream)
    cuda.copy_to_host(back.ctypes.data, device, 16, stream)
    assert not back.any()
    cuda.synchronize(stream)
    assert back.tolist() == [1, 2, 3, 4]


def test_events_measure_and_are_given_back(cuda, library):
    stream, start, end = cuda.create_stream(), cuda.create_event(), cuda.create_event()
    cuda.record(start, stream)
    cuda.record(end, stream)
    assert cuda.elapsed_ms(start, end) == 1.5
    cuda.destroy_event(start)
    cuda.destroy_event(end)
    cuda.destroy_stream(stream)
    assert library.live == {}


def test_a_library_that_is_too_old_is_told(cuda, library):
    del library.cudaGraphInstantiateWithFlags
    stream = cuda.create_stream()
    cuda.begin_capture(stream)
    with pytest.raises(EngineUnavailableError, match="no cudaGraphInstantiateWithFlags; rctk needs CUDA 12"):
        cuda.end_capture(stream)


def test_the_first_library_that_sees_a_gpu_is_taken(monkeypatch, install):
    newest, older = install("10.3.0").cuda, install("10.3.0").cuda
    newest.fail["cudaGetDeviceCount"], newest.runtime = 35, 13000
    libraries = {"libcudart.so.13": newest, "libcudart.so.12": older}

    def load(name):
        if name not in libraries:
            raise OSError(name)
        return libraries[name]

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert load_cuda(["libcudart.so.13", "libcudart.so.12"]).versions() == ("12.6", "12.6")
    with pytest.raises(EngineUnavailableError, match=r"driver for CUDA 12\.6, runtime 13\.0"):
        load_cuda(["libcudart.so.13", "libcudart.so.99"])
    with pytest.raises(EngineUnavailableError, match="no CUDA runtime"):
        load_cuda(["libcudart.so.99"])


def test_libraries_of_wheels_are_found_behind_those_of_the_system(tmp_path):
    for folder, version in (("nvidia/cu13/lib", 13), ("nvidia/cuda_runtime/lib", 12)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"libcudart.so.{version}").touch()
    found = candidates([str(tmp_path), "/nowhere"])
    assert found[:3] == list(cuda_runtime.SONAMES)
    assert [path[-2:] for path in found[3:]] == ["13", "12"]


def test_a_real_library_answers_as_the_wrapper_expects():
    """Where CUDA's runtime is installed: with a GPU it describes it, without a driver it names that error."""
    real = next((path for path in candidates(sys.path) if _loads(path)), None)
    if real is None:
        pytest.skip("no libcudart here")
    runtime = CudaRuntime(ctypes.CDLL(real))
    assert float(runtime.versions()[1]) >= 11
    if float(runtime.versions()[0]):
        assert runtime.device(0).uuid.startswith("GPU-")
        return
    with pytest.raises(CudaError, match=r"cudaErrorInsufficientDriver|cudaErrorNoDevice"):
        runtime.device_count()


def _loads(path):
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
