"""What this machine can run, what is missing, and how to mend it. Nothing heavy is imported to find out."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rctk.data.catalog import DATASETS
from rctk.doctor_check import Check
from rctk.doctor_device import device_checks
from rctk.machine import INT8_FLAGS, installed, machine_facts, recommended_threads, usable_cores
from rctk_export.cpu import saturates_u8s8, spoils_int8

SPOILT = (
    "on this processor (AMX) it computes fused int8 products wrongly, so rctk runs int8 files unoptimised; "
    "pip install 'onnxruntime>=1.25'"
)
GIB = 2**30
LEAST_MEMORY_BYTES = 2 * GIB
LEAST_DISK_BYTES = GIB
HOST_PYTHON = (3, 11)
RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch", "onnx"),
    "twin": ("torch", "onnx"),
    "reference": ("onnx",),
    "tensorrt": ("tensorrt",),
    "remote": ("tritonclient",),
    "openvino": ("openvino",),
    "executorch": ("executorch", "torch"),
    "torch-tensorrt": ("torch", "onnx", "torch_tensorrt", "modelopt"),
    "onnxruntime-cuda": ("onnxruntime",),
    "onnxruntime-tensorrt": ("onnxruntime",),
    "onnxruntime-rtx": ("onnxruntime", "onnxruntime_ep_nv_tensorrt_rtx"),
}
"""Engine to the packages that it imports besides NumPy."""
PROVIDERS = {"onnxruntime-cuda": "cuda", "onnxruntime-tensorrt": "tensorrt"}
"""Engine to the provider that the wheel of ONNX Runtime must hold as a library."""
HOST_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "scipy", "sklearn", "PIL", "matplotlib", "seaborn")
"""What export, white-box attacks, data sets and reports import."""
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "onnxruntime_ep_nv_tensorrt_rtx": ("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
    "torch_tensorrt": ("torch-tensorrt",),
    "modelopt": ("nvidia-modelopt",),
    "sklearn": ("scikit-learn",),
    "PIL": ("pillow",),
}
INSTALL = {
    "onnxruntime": "`pip install 'rctk[ort]'`",
    "onnxruntime-cuda": "`pip install 'rctk[ort-gpu]'` after `pip uninstall onnxruntime`",
    "onnxruntime-tensorrt": "`pip install 'rctk[ort-tensorrt]'` after `pip uninstall onnxruntime`",
    "onnxruntime-rtx": "`pip install 'rctk[ort-rtx]'`",
    "torch-tensorrt": "`pip install 'rctk[torch-tensorrt]'`",
    "openvino": "`pip install 'rctk[openvino]'`",
    "executorch": "`pip install 'rctk[executorch]'`",
    "remote": "`pip install 'rctk[remote]'`",
    "tensorrt": "`pip install 'rctk[tensorrt]'`; on a Jetson JetPack's own, with --system-site-packages",
}
HOST_INSTALL = "`pip install 'rctk[host]'`"
TORCHATTACKS_INSTALL = "`pip install --no-deps torchattacks==3.5.1`"  # it pins an old requests and asks for torchvision


def checks(environ: Mapping[str, str] | None = None, runs: Path = Path("runs")) -> list[Check]:
    """Look at this machine; takes a fraction of a second, seconds where ``nvidia-smi`` is slow.

    Args:
        environ: Environment variables; this process's by default.
        runs: Where records will go.
    """
    environ = os.environ if environ is None else environ
    facts = machine_facts()
    return [
        python(sys.version_info[:2]),
        cores(facts, usable_cores()),
        threads(facts["load_average"][0], usable_cores(), environ),
        memory(facts),
        disk(runs),
        int8(facts["cpu_flags"], saturates=saturates_u8s8()),
        *(engine(name) for name in RUNTIMES),
        *(package(name) for name in HOST_PACKAGES),
        torchattacks(),
        data(environ.get("RCTK_DATA", "")),
        gpu(facts["gpus"]),
        *device_checks(facts),
    ]


def python(version: tuple[int, int]) -> Check:
    """Python 3.10 runs bundles; the host side asks for 3.11."""
    found = f"{platform.python_version()} at {sys.prefix}"
    if version >= HOST_PYTHON:
        return Check(name="python", state="ok", found=found)
    return Check(name="python", state="warning", found=found, step="export and training need Python 3.11 or newer")


def cores(facts: Mapping[str, Any], usable: int) -> Check:
    """Tell what of the machine this process may use."""
    quota = facts["cores_quota"]
    limit = f", control group allows {quota:g}" if quota is not None else ""
    physical = facts["cores_physical"] or "unknown"
    found = f"{facts['cpu']}: {facts['cores_logical']} logical, {physical} physical{limit}; {usable} usable"
    if quota is not None and quota < 1:
        step = "timings will stutter below one core; raise the limit (docker run --cpus 1)"
        return Check(name="cores", state="warning", found=found, step=step)
    return Check(name="cores", state="ok", found=found)


def threads(load: float, usable: int, environ: Mapping[str, str]) -> Check:
    """Warn of a team of OpenMP threads that would spin on a busy machine."""
    advised = recommended_threads(load, usable)
    given = environ.get("OMP_NUM_THREADS", "")
    passive = environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    policy = "waiting threads sleep" if passive else "waiting threads may spin"
    found = f"load {load:.1f} on {usable} cores; OMP_NUM_THREADS {given or 'not set'}, {policy}"
    if given.isdigit() and int(given) > advised and not passive:
        step = f"set OMP_NUM_THREADS={advised} or OMP_WAIT_POLICY=PASSIVE: threads that spin stall each other when busy"
        return Check(name="threads", state="warning", found=found, step=step)
    if advised < usable:
        step = (
            f"timings will be disturbed; use {advised} thread{'s' * (advised > 1)}, or wait until the machine is quiet"
        )
        return Check(name="threads", state="warning", found=found, step=step)
    return Check(name="threads", state="ok", found=found)


def memory(facts: Mapping[str, Any]) -> Check:
    """Tell what memory is left, within the limit of the control group."""
    known = [value for value in (facts["memory_available_bytes"], facts["memory_limit_bytes"]) if value is not None]
    if not known:
        return Check(name="memory", state="warning", found="unknown", step="peak memory cannot be measured here")
    left = min(known)
    total = f" of {facts['memory_bytes'] / GIB:.1f} GiB" if facts["memory_bytes"] else ""
    found = f"{left / GIB:.1f} GiB usable{total}"
    if left < LEAST_MEMORY_BYTES:
        step = "export needs about 2 GiB; close other programs or raise the limit"
        return Check(name="memory", state="warning", found=found, step=step)
    return Check(name="memory", state="ok", found=found)


def disk(runs: Path) -> Check:
    """Tell whether records and reports can be written below ``runs``, which need not exist yet."""
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free for {runs}"
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        step = f"{folder} is not a folder that you may write to; give another with --out"
        return Check(name="disk", state="missing", found=found, step=step)
    if free < LEAST_DISK_BYTES:
        return Check(name="disk", state="warning", found=found, step="free some space, or give another disk with --out")
    return Check(name="disk", state="ok", found=found)


def int8(flags: list[str], *, saturates: bool) -> Check:
    """Tell whether the CPU has instructions that make int8 fast, and exact."""
    name, found = "int8 instructions", ", ".join(flag for flag in flags if flag in INT8_FLAGS)
    if found:
        return Check(name=name, state="ok", found=found)
    if saturates:
        step = "fused uint8 x int8 products saturate on this CPU and gain little; cpu-mirror runs unoptimised"
        return Check(name=name, state="warning", found="no VNNI", step=step)
    return Check(name=name, state="warning", found="none known", step="int8 may be no faster than float here")


def engine(name: str) -> Check:
    """Tell whether the packages of an engine are installed, and which."""
    check = _packages(f"engine {name}", RUNTIMES[name], INSTALL.get(name, HOST_INSTALL))
    if check.state != "ok" or "onnxruntime" not in RUNTIMES[name]:
        return check
    if name in PROVIDERS and not _provider_library(PROVIDERS[name]):
        found = f"{check.found}, a wheel without that provider"
        return Check(name=check.name, state="missing", found=found, step=INSTALL[name])
    version = installed(("onnxruntime",))
    if name == "onnxruntime" and version and spoils_int8(version):
        return Check(name=check.name, state="warning", found=check.found, step=SPOILT)
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if installed((name,))]
    if len(both) > 1:
        step = "both fill one folder and spoil each other; uninstall both, then install one"
        return Check(name=check.name, state="warning", found=" and ".join(both), step=step)
    return check


def _provider_library(provider: str) -> bool:
    """Whether the wheel of ONNX Runtime holds that provider; nothing is loaded, so CUDA itself may be missing."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec is not None else None
    names = (f"libonnxruntime_providers_{provider}.so", f"onnxruntime_providers_{provider}.dll")
    return any((Path(folder) / "capi" / name).is_file() for folder in folders or () for name in names)


def package(name: str) -> Check:
    """Tell whether one package of the host side is installed."""
    return _packages(f"host {name}", (name,), HOST_INSTALL)


def torchattacks() -> Check:
    """Tell whether the white-box attacks have their library; it must be installed without its dependencies."""
    return _packages("host torchattacks", ("torchattacks",), TORCHATTACKS_INSTALL)


def _packages(title: str, names: tuple[str, ...], step: str) -> Check:
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        return Check(name=title, state="missing", found=f"no {' and no '.join(absent)}", step=step)
    labels = [f"{name} {installed(DISTRIBUTIONS.get(name, (name,)))}".strip() for name in names]
    return Check(name=title, state="ok", found=", ".join(labels))


def data(root: str) -> Check:
    """Tell which of the known data sets have a folder below ``RCTK_DATA``."""
    if not root:
        step = "set it to a folder with data sets, or give data by path; digits comes with scikit-learn"
        return Check(name="RCTK_DATA", state="warning", found="not set", step=step)
    if not Path(root).is_dir():
        return Check(name="RCTK_DATA", state="missing", found=f"{root} is not a folder", step="set it to a folder")
    held = [name for name in DATASETS if (Path(root) / name).is_dir()]
    if not held:
        step = f"put a data set there, for example in {Path(root) / 'cifar10'}; `rctk list data` shows the files"
        return Check(name="RCTK_DATA", state="warning", found=f"{root}: no data set that rctk knows", step=step)
    return Check(name="RCTK_DATA", state="ok", found=f"{root}: {', '.join(held)}")


def gpu(names: list[str]) -> Check:
    """Name the GPUs; none is needed."""
    return Check(name="gpu", state="ok", found=", ".join(names) or "none (not needed)")
