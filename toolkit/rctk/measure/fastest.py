"""Which installed engine runs a file fastest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from rctk.measure.bench import Contender, bench, with_threads
from rctk.measure.settings import BenchSettings
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

LEFT_OUT = frozenset({"reference", "twin", "remote"})
"""Two exist to be right and are never the fastest; the third runs on another machine."""


class Fastest(NamedTuple):
    """The engine with the least median time, the medians of all that ran, and why others were left out."""

    engine: str
    median_ms: dict[str, float]
    left_out: dict[str, str]


def candidates(source: Source) -> list[str]:
    """Return the engines that could be the fastest: no instruments, no servers, and torch for float files only."""
    return [name for name in ENGINES.names() if name not in LEFT_OUT and (name != "torch" or source.role == "float")]


def fastest(
    source: Source, images: FloatNCHW | None, settings: BenchSettings, names: Iterable[str] | None = None
) -> Fastest:
    """Find the fastest installed engine for ``source`` by timing, in turns, all that can open it.

    Args:
        source: The file.
        images: See :func:`bench`.
        settings: See :class:`BenchSettings`; memory is not measured.
        names: Engines to try; :func:`candidates` by default.

    Raises:
        EngineUnavailableError: None of them can; the message holds each one's reason.
    """
    tried = {name: _obstacle(name, source, settings) for name in (candidates(source) if names is None else names)}
    left_out = {name: reason for name, reason in tried.items() if reason is not None}
    able = [name for name in tried if name not in left_out]
    if not able:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise EngineUnavailableError(f"no installed engine runs {source.path.name} ({reasons}); see `rctk doctor`")
    contenders = [Contender(engine=name, source=source) for name in able]
    values = bench(contenders, images, dataclasses.replace(settings, memory=False, cold_starts=0, energy=False))
    medians = {name: float(value["median_ms"]) for name, value in zip(able, values, strict=True)}
    return Fastest(min(medians, key=medians.__getitem__), medians, left_out)


def _obstacle(name: str, source: Source, settings: BenchSettings) -> str | None:
    try:
        with ENGINES.build(with_threads(name, settings.threads)).open(source):
            return None
    except (EngineError, OptionError) as error:
        return str(error)
    except ModuleNotFoundError as error:  # of the engine's own module, such as torch on a device
        return f"it needs the package {error.name}, which is not installed"
