"""``rctk list``."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping

from rctk.cli.console import table
from rctk_export.registry import unknown
from rctk_kernels.errors import RctkError

FAMILIES = {
    "attacks": "rctk.attacks:ATTACKS",
    "metrics": "rctk.metrics.measured:METRICS",
    "engines": "rctk_export.engines:ENGINES",
    "targets": "rctk_export.quantize:PLANNERS",
    "calibrators": "rctk.quantize:CALIBRATORS",
    "steps": "rctk.compress:STEPS",
    "criteria": "rctk.prune:CRITERIA",
    "objectives": "rctk.train.objective:OBJECTIVES",
    "augmentations": "rctk.train.augmentation:AUGMENTATIONS",
    "corruptions": "rctk.stress:CORRUPTIONS",
    "stress-tests": "rctk.stress:STRESS_TESTS",
    "models": "rctk.models:ARCHITECTURES",
    "data": "rctk.data:DATASETS",
}


def list_(*families: str) -> None:
    """List attacks, metrics, engines, targets, calibrators, steps, pruning criteria, objectives, models, data sets, ...

    Example: rctk list attacks engines

    Args:
        families: Any of the words above, such as attacks or data; all by default.
    """
    for family in families or tuple(FAMILIES):
        if family not in FAMILIES:
            raise unknown("list", family, list(FAMILIES))
        module, _, name = FAMILIES[family].partition(":")
        try:
            members = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            print(f"{family}: needs {error.name}; install it with `pip install 'rctk[host]'`")
            continue
        rows = [(key, _about(members, key)) for key in _names(members)]
        table(family, ("name", "what it is"), rows)
        print()


def _names(members: object) -> list[str]:
    names: Callable[[], list[str]] | None = getattr(members, "names", None)
    return names() if names is not None else sorted(members) if isinstance(members, Mapping) else []


def _about(members: object, key: str) -> str:
    member = members[key] if isinstance(members, Mapping) else None
    if member is not None and hasattr(member, "what"):
        return f"{member.what} [{member.where}]"
    load: Callable[[str], object] | None = getattr(members, "load", None)
    try:
        loaded = load(key) if load is not None else member
    except ModuleNotFoundError as error:
        return f"needs {error.name}; install it with `pip install 'rctk[host]'`"
    except RctkError as error:
        return str(error)
    described = getattr(loaded, "func", loaded)  # a partial speaks through its function
    text = (getattr(described, "__doc__", None) or "").strip().removeprefix("Make ")
    return re.sub(r":\w+:`([^`]*)`", r"\1", text.splitlines()[0]).replace("``", "") if text else ""
