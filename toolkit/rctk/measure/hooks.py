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


def planned_bytes(engine: Engine) -> int | None:
    """Return what ``engine`` plans to take; ``None`` where it does not say."""
    return engine.planned_bytes() if isinstance(engine, PlansMemory) else None
