"""Facts about the machine that a measurement depends on, and how many threads it can bear. Standard library only."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rctk import __version__

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""A CPU with one of these multiplies 8-bit codes into 32-bit sums without saturating in between."""
FLAGS = INT8_FLAGS | {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve"}
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "torch_tensorrt": ("torch-tensorrt",),
    "onnxruntime_rtx": ("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
    "torchattacks": ("torchattacks",),
    "openvino": ("openvino",),
}
"""Import name to the distributions that provide it."""
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
"""ARM Linux names a core by implementer and part number only (arch/arm64/include/asm/cputype.h)."""
NO_LIMIT_BYTES = 2**60  # cgroup v1 writes "no limit" as the largest page-aligned int64
CGROUPS = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")
TOOL_SECONDS = 10.0


class Cpu(NamedTuple):
    """Model name and those of its features that matter for speed."""

    model: str
    flags: tuple[str, ...]


class Limits(NamedTuple):
    """What the control groups of this process allow; ``None`` where there is no limit."""

    cores: float | None
    memory_bytes: int | None


def machine_facts() -> dict[str, Any]:
    """Return JSON values that say where a measurement was made; no host name, no user name, no address."""
    cpu = parse_cpuinfo(_text("/proc/cpuinfo"))
    memory = parse_meminfo(_text("/proc/meminfo"))
    available = available_cpus()
    limits = control_group_limits(_text("/proc/self/cgroup"), CGROUPS)
    return {
        "cpu": cpu.model or platform.processor() or platform.machine(),
        "cpu_flags": list(cpu.flags),
        "cores_logical": len(available),
        "cores_physical": physical_cores(available, CPUS),
        "cores_quota": limits.cores,
        "memory_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "memory_limit_bytes": limits.memory_bytes,
        "os": parse_os_release(_text("/etc/os-release")) or platform.system(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "board": board_name(Path("/")),
        "l4t": parse_l4t(_text("/etc/nv_tegra_release")),
        "gpus": gpu_names(),
        "load_average": list(load_average()),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide a result; none is imported."""
    found = {name: installed(names) for name, names in PACKAGES.items()}
    own = {"python": platform.python_version(), "rctk": __version__}
    return {**own, **{name: version for name, version in found.items() if version}}


def installed(distributions: Iterable[str]) -> str:
    """Return the version of the first of ``distributions`` that is installed, else ``""``."""
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def parse_cpuinfo(text: str) -> Cpu:
    r"""Read ``/proc/cpuinfo`` of x86 or ARM; several kinds of ARM core are joined with ``+``.

    Example:
        >>> parse_cpuinfo("CPU implementer : 0x41\nCPU part : 0xd42\nFeatures : fp asimd asimddp")
        Cpu(model='Cortex-A78AE', flags=('asimd', 'asimddp'))
    """
    fields = re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", text, flags=re.MULTILINE)
    names = [value for key, value in fields if key.lower() == "model name"]
    makers = [value for key, value in fields if key == "CPU implementer"]
    parts = [value for key, value in fields if key == "CPU part"]
    kinds = names or [ARM_CORES.get(pair, f"ARM {pair[0]}/{pair[1]}") for pair in zip(makers, parts, strict=False)]
    flags = {flag for key, value in fields if key in {"flags", "Features"} for flag in value.split()}
    return Cpu("+".join(dict.fromkeys(kinds)), tuple(sorted(flags & FLAGS)))


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the lines of ``/proc/meminfo``, or the memory lines of ``/proc/PID/status``, in bytes."""
    return {key: int(number) * 1024 for key, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE)}


def parse_os_release(text: str) -> str:
    """Return ``PRETTY_NAME`` of ``/etc/os-release``."""
    match = re.search(r"^PRETTY_NAME=(.*)$", text, flags=re.MULTILINE)
    return match[1].strip("\"' ") if match else ""


def board_name(root: Path) -> str:
    """Return the model that the device tree of an ARM board names, such as a Jetson's, else ``""``."""
    texts = [_text(root / name / "model") for name in ("proc/device-tree", "sys/firmware/devicetree/base")]
    return next((text.strip("\0 \n") for text in texts if text), "")


def parse_l4t(text: str) -> str:
    """Return the Jetson Linux release of ``/etc/nv_tegra_release``, else ``""``.

    Example:
        >>> parse_l4t("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64")
        '36.4.3'
    """
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else ""


def available_cpus() -> list[int]:
    """Return the numbers of the logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def physical_cores(cpus: Iterable[int], root: Path) -> int | None:
    """Count the cores behind logical CPUs; ``None`` where the kernel does not tell."""
    siblings = {_text(root / f"cpu{cpu}/topology/thread_siblings_list").strip() for cpu in cpus}
    return None if "" in siblings else len(siblings)


def control_group_limits(membership: str, root: Path) -> Limits:
    """Find the tightest CPU and memory limit among the control groups of a process and their parents.

    Args:
        membership: Text of ``/proc/self/cgroup``.
        root: Where the hierarchies are mounted, version 1, 2 or both. Inside a container the paths in ``membership``
            may not exist there; the mount point itself then is the group of the container.
    """
    cores: list[float] = []
    sizes: list[int] = []
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(.*)$", membership, flags=re.MULTILINE):
        for mount in [root / name for name in controllers.split(",") if name] or [root, root / "unified"]:
            for folder in _group_folders(mount, path):
                cores += _quota(folder)
                sizes += [int(text) for text in _limit_texts(folder) if text.isdigit() and int(text) < NO_LIMIT_BYTES]
    return Limits(min(cores, default=None), min(sizes, default=None))


def _group_folders(mount: Path, path: str) -> list[Path]:
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    return [mount.joinpath(*parts[:length]) for length in range(len(parts) + 1)]


def _quota(folder: Path) -> list[float]:
    pairs = [_text(folder / "cpu.max").split()]
    pairs.append([*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()])
    return [int(pair[0]) / int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0].isdigit()]


def _limit_texts(folder: Path) -> list[str]:
    return [_text(folder / name).strip() for name in ("memory.max", "memory.limit_in_bytes")]


def load_average() -> tuple[float, float, float]:
    """Return the load over 1, 5 and 15 minutes; zeros where the system does not tell."""
    try:
        return os.getloadavg()
    except OSError:
        return 0.0, 0.0, 0.0


def usable_cores() -> int:
    """Return how many cores this process can keep busy: its CPUs without hyper-threads, at most its quota."""
    cpus = available_cpus()
    cores = physical_cores(cpus, CPUS) or len(cpus)
    quota = control_group_limits(_text("/proc/self/cgroup"), CGROUPS).cores
    return max(1, min(cores, math.floor(quota) if quota is not None else cores))


def recommended_threads(load: float, cores: int) -> int:
    """Return the cores that ``load`` leaves free, rounded to the nearest whole number, from 1 to ``cores``.

    A team of OpenMP threads waits for its slowest member, spinning: with fewer free cores than threads one of them is
    always off the CPU and the others burn its time. On a busy machine one thread is many times faster than two.

    Args:
        load: Runnable processes beside this one, such as the load average over one minute.
        cores: What the process may use; :func:`usable_cores`.

    Example:
        >>> [recommended_threads(load, 4) for load in (0.0, 0.4, 0.6, 2.0, 9.0)]
        [4, 4, 3, 2, 1]
    """
    return max(1, min(cores, math.floor(cores - load + 0.5)))


def thread_environment(environ: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """Return the OpenMP variables to set, before torch is imported, where the user has set none.

    Waiting threads sleep instead of spinning, so that other work on the machine does not stall the team.

    Args:
        environ: Environment variables as they are.
        threads: Size of the team; :func:`recommended_threads` for the present load by default.

    Example:
        >>> thread_environment({"OMP_NUM_THREADS": "8"}, threads=2)
        {'OMP_WAIT_POLICY': 'PASSIVE'}
    """
    team = recommended_threads(load_average()[0], usable_cores()) if threads is None else threads
    wanted = {"OMP_NUM_THREADS": str(team), "OMP_WAIT_POLICY": "PASSIVE"}
    return {name: value for name, value in wanted.items() if name not in environ}


def gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs that ``nvidia-smi`` reports; none where it is absent, fails or hangs."""
    return parse_gpu_names(run_text("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"))


def parse_gpu_names(text: str) -> list[str]:
    """Return one name per line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def run_text(program: str, *arguments: str) -> str:
    """Return what a system tool prints, or ``""`` where it is absent, fails or takes longer than ten seconds."""
    path = shutil.which(program)
    if path is None:
        return ""
    command = [path, *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments, no shell
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _text(path: Path | str) -> str:
    """Return a system file, or ``""`` where this system has none that we may read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
