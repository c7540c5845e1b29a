"""What an engine may offer a measurement beyond ``predict``. Each is optional: the engine reports, others decide."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rctk_export.engine import Engine


@runtime_checkable
class TimesDevice(Protocol):
    """An engine that puts CUDA events around the work of a batch when it is asked to."""

    def time_device(self) -> None:
        """Record events around every batch from now on."""
        ...

    def device_ms(self) -> float:
        """Return the time on the device of the last ``predict``, copies included, in milliseconds."""
        ...


@runtime_checkable
class PlansMemory(Protocol):
    """An engine that knows what memory it will take."""

    def planned_bytes(self) -> int:
        """Return the bytes of the loaded file and of what one execution context reserves on the device."""
        ...


@runtime_checkable
class PlacesNodes(Protocol):
    """An engine that knows which part of a runtime runs how many nodes of the graph."""

    def placement(self) -> dict[str, int]:
        """Return nodes by provider, as the runtime calls them; empty where it does not tell."""
        ...


def nodes_by_provider(engine: Engine) -> dict[str, int]:
    """Return where the nodes of ``engine`` run; empty where nobody says."""
    return engine.placement() if isinstance(engine, PlacesNodes) else {}


def planned_bytes(engine: Engine) -> int | None:
    """Return what ``engine`` plans to take; ``None`` where it does not say."""
    return engine.planned_bytes() if isinstance(engine, PlansMemory) else None
