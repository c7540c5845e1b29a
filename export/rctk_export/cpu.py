"""What the processor of this machine can do with 8-bit integers."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
RIGHT_ON_AMX = (1, 25)
"""First version of ONNX Runtime for which :func:`spoils_int8` has nothing to say."""
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def has_vnni(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether this x86 processor sums int8 products in 32 bits; False where the kernel does not say.

    Args:
        cpuinfo: The Linux kernel's description of the processors; the first one's ``flags`` line is read.
    """
    return not VNNI.isdisjoint(_flags(cpuinfo))


def has_amx_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether this x86 processor multiplies tiles of int8; see :func:`has_vnni`."""
    return "amx_int8" in _flags(cpuinfo)


def _flags(cpuinfo: Path) -> list[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split()


def saturates_u8s8() -> bool:
    """Tell whether uint8 x int8 products lose their top here.

    x86 without VNNI adds pairs of such products in 16 bits, so a fused int8 kernel can give another result than the
    file says. Other processors (ARM) widen first.
    """
    return platform.machine().lower() in {"x86_64", "amd64", "i686"} and not has_vnni()


def spoils_int8(version: str) -> bool:
    """Tell whether this ONNX Runtime computes uint8 x int8 products wrongly here.

    Up to version 1.24 the last of every 32 rows is wrong where tiles are multiplied (AMX); ONNX Runtime issue 26324,
    mended by its pull request 27671.

    Args:
        version: Such as ``1.23.2``.
    """
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return numbers < RIGHT_ON_AMX and has_amx_int8()
