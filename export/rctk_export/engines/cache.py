"""Folders for engines that a runtime builds and keeps: one for each file, machine, version and set of options.

ONNX Runtime names a cached engine after the graph and loads it whatever TensorRT, driver or option has changed since.
Here everything that an engine depends on is part of the folder's name, so that nothing stale is ever found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from rctk_export.tensorrt.cuda_runtime import load_cuda
from rctk_export.tensorrt.record import system
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import EngineError, EngineUnavailableError

KEY = "key.json"
Facts = Mapping[str, str | Mapping[str, str]]


def key(facts: Facts) -> str:
    """Return 16 hexadecimal digits that differ wherever a fact does.

    Example:
        >>> key({"gpu": "Orin", "tensorrt": "10.3.0"}) == key({"tensorrt": "10.3.0", "gpu": "Orin"})
        True
    """
    return hashlib.sha256(_text(facts).encode()).hexdigest()[:16]


def cache_folder(root: Path, name: str, facts: Facts) -> Path:
    """Return the folder below ``root`` for what ``facts`` describe, made where it is missing.

    Args:
        root: Where all caches lie; engines are code, so only you should be able to write there.
        name: Begins the name of the folder, for people.
        facts: All that the content depends on; they are written beside it.

    Raises:
        EngineError: The folder is of other facts, or cannot be written.
    """
    folder = root / f"{name}-{key(facts)}"
    path = folder / KEY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            strangers = [file for file in folder.iterdir() if not file.name.startswith(".") and file.name != KEY]
            if strangers and not path.exists():  # another process may have come first
                raise EngineError(f"{folder} holds engines and no {KEY} that tells what they are; delete it")
            write_whole(path, _text(facts).encode())
        elif path.read_text(errors="replace") != _text(facts):
            raise EngineError(f"{path} describes other engines than its folder is for; delete {folder}")
    except OSError as error:
        raise EngineError(f"{folder} cannot be used as a cache ({error.strerror}); give another with cache=") from error
    return folder


def gpu_facts(index: int) -> dict[str, str]:
    """Return what a built engine depends on: the GPU, its driver and the system; :class:`EngineError` without one."""
    cuda = load_cuda()
    count = cuda.device_count()
    if index >= count:
        raise EngineUnavailableError(f"there is no GPU {index}, this machine has {count}; choose with device=0")
    device = cuda.device(index)
    return {
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "cuda_driver": cuda.versions()[0],
        "system": system(),
    }


def _text(facts: Facts) -> str:
    return json.dumps(facts, indent=2, sort_keys=True) + "\n"
