"""Whether the installed PyTorch, torch-tensorrt and TensorRT belong together, found out before any is imported.

Each torch-tensorrt is built for one minor version of PyTorch and one of TensorRT; another one ends in a missing symbol.
The pair is what the installed package itself asks for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from rctk_kernels.errors import EngineUnavailableError

PACKAGE = "torch-tensorrt"
OLDEST = (2, 8)
INSTALL = "run `pip install 'rctk[torch-tensorrt]'`"
TENSORRT = "tensorrt"


def versions() -> dict[str, str]:
    """Return the versions of the three; :class:`EngineUnavailableError` says which one is absent or does not fit."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        raise EngineUnavailableError(f"the torch-tensorrt engine needs {PACKAGE}; {INSTALL}")
    try:
        own, asked = version(PACKAGE), requires(PACKAGE) or []
    except PackageNotFoundError as error:
        raise EngineUnavailableError(f"torch_tensorrt is here without the package {PACKAGE}; {INSTALL}") from error
    return check_pair(own, asked, {name: _installed(name) for name in _names(asked)})


def check_pair(own: str, asked: Iterable[str], here: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of what belongs together.

    Args:
        own: Version of torch-tensorrt.
        asked: What its metadata require, as in ``torch<2.14.0,>=2.13.0``.
        here: Installed packages to version; empty for those that are not there.

    Raises:
        EngineUnavailableError: One is absent, too old or of another version; names both.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415  # torch-tensorrt brings it

    if tuple(int(part) for part in own.split(".")[:2]) < OLDEST:
        raise EngineUnavailableError(f"{PACKAGE} {own} is too old, rctk needs 2.8 or newer; {INSTALL}")
    found = {PACKAGE: own}
    for requirement in map(Requirement, asked):
        name = requirement.name
        if not _relevant(name) or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        have = here.get(name, "")
        if have and not requirement.specifier.contains(have, prereleases=True):
            raise EngineUnavailableError(
                f"{PACKAGE} {own} needs {name}{requirement.specifier}, here is {name} {have}; install the pair with "
                f"`pip install '{PACKAGE}=={own}' '{name}{requirement.specifier}'`"
            )
        if have:
            found["torch" if name == "torch" else TENSORRT] = have
    for name in ("torch", TENSORRT):
        if name not in found:
            raise EngineUnavailableError(f"{PACKAGE} {own} is here without {name}; {INSTALL}")
    return found


def _names(asked: Iterable[str]) -> list[str]:
    from packaging.requirements import Requirement  # noqa: PLC0415  # torch-tensorrt brings it

    return [name for name in (Requirement(text).name for text in asked) if _relevant(name)]


def _relevant(name: str) -> bool:
    return name == "torch" or name.partition("-")[0] == TENSORRT


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
