"""What the processor of this machine can do with 8-bit integers."""

from __future__ import annotations

import platform
from pathlib import Path

VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this x86 processor sums int8 products in 32 bits; False where the kernel does not say.

    Args:
        cpuinfo: The Linux kernel's description of the processors; the first one's ``flags`` line is read.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return not VNNI.isdisjoint(flags.split())


def saturates_u8s8() -> bool:
    """Tell whether uint8 x int8 products lose their top here.

    x86 without VNNI adds pairs of such products in 16 bits, so a fused int8 kernel can give another result than the
    file says. Other processors (ARM) widen first.
    """
    return platform.machine().lower() in {"x86_64", "amd64", "i686"} and not has_vnni()
