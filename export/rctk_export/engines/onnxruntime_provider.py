"""Where the libraries of ONNX Runtime's NVIDIA providers are, and why one of them does not load.

The wheel of onnxruntime-gpu holds the providers, not CUDA, cuDNN or TensorRT. Those of pip's wheels lie outside of the
loader's path, so they are loaded here beforehand, by the calls and folders that their makers name.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from rctk_export.engines.onnxruntime_wheel import CUDA, ort, present
from rctk_export.tensorrt.cuda_runtime import load_cuda
from rctk_kernels.errors import EngineError, EngineUnavailableError

TENSORRT = "TensorrtExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
EXTRAS = {CUDA: "ort-gpu", TENSORRT: "ort-tensorrt", RTX: "ort-rtx"}
"""Extras of rctk that bring a provider with all that it loads."""
UNINSTALL = " after `pip uninstall onnxruntime`, which fills the same folder"


def install(provider: str) -> str:
    """Return the next step for a provider that is absent or lacks libraries."""
    return f"run `pip install 'rctk[{EXTRAS[provider]}]'`{UNINSTALL if provider != RTX else ''}"


def need(provider: str) -> None:
    """Load what ``provider`` needs; :class:`EngineUnavailableError` where this build does not have it."""
    if not present(provider):
        raise EngineUnavailableError(
            f"this ONNX Runtime {ort.__version__} has no {provider}, only {', '.join(ort.get_available_providers())}; "
            f"onnxruntime-gpu has it: {install(provider)}"
        )
    preload = getattr(ort, "preload_dlls", None)  # from 1.21
    if preload is not None:
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()


def load_failure(provider: str) -> str:
    """Return why the library of ``provider`` cannot be used, after ONNX Runtime has tried; empty if it can.

    Before that the library must not be touched: it looks for ONNX Runtime while it loads.
    """
    name = LIBRARIES.get(provider)
    if name is None:
        return ""
    path = capi() / name
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return f"{' '.join(str(error).split())}; {install(provider)}"
    try:
        load_cuda()
    except EngineError as error:
        return str(error)
    return ""


def capi(package: Path | None = None) -> Path:
    """Return the folder with ONNX Runtime's libraries.

    Args:
        package: Folder of the package; that of the imported one by default.
    """
    return (Path(ort.__file__).parent if package is None else package) / "capi"


def load_tensorrt(library: Path | None = None, search: Sequence[Path] | None = None) -> str:
    """Load the TensorRT that the provider was linked with, also out of pip's wheel, and return its version.

    Args:
        library: The provider's library; that of the imported ONNX Runtime by default.
        search: Folders of wheels to look into; those of ``tensorrt_libs`` by default.

    Raises:
        EngineUnavailableError: It is not here; names the file.
    """
    library = capi() / LIBRARIES[TENSORRT] if library is None else library
    needed = sorted(linked(library))
    folders = wheel_folders("tensorrt_libs") if search is None else list(search)
    loaded: dict[str, Any] = {}
    for name in needed:
        found = next((str(folder / name) for folder in folders if (folder / name).is_file()), name)
        try:
            loaded[name] = ctypes.CDLL(found, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise EngineUnavailableError(f"{TENSORRT} did not start: {error}; {install(TENSORRT)}") from error
    runtime = next((loaded[name] for name in needed if name.startswith("libnvinfer.so")), None)
    if runtime is None:
        raise EngineUnavailableError(f"{library.name} links no TensorRT that rctk knows; leave cache away")
    return dotted(int(runtime.getInferLibVersion()))


def linked(library: Path) -> set[str]:
    """Return the file names of the TensorRT libraries that ``library`` asks for; empty where there is none."""
    if not library.is_file():
        return set()
    pattern = rb"(lib(?:nvinfer|nvinfer_plugin|nvonnxparser)\.so\.\d+)\0"
    return {match.decode() for match in re.findall(pattern, library.read_bytes())}


def dotted(number: int) -> str:
    """Return a version from TensorRT's number: 10000 per major, 100 per minor; 1000 per major before 10.

    Example:
        >>> dotted(101303), dotted(8601)
        ('10.13.3', '8.6.1')
    """
    thousand = 10000 if number >= 100000 else 1000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"


def wheel_folders(package: str) -> list[Path]:
    """Return the folders of an installed package; none where it is absent."""
    with suppress(ModuleNotFoundError, ValueError):
        spec = importlib.util.find_spec(package)
        return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return []
