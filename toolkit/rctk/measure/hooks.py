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
    """An engine that knows what memory it reserves on its device."""

    def planned_device_bytes(self) -> int:
        """Return the bytes of one execution context, without the model file."""
        ...


def planned_bytes(engine: Engine) -> int | None:
    """Return what ``engine`` reserves on its device; ``None`` where it does not say."""
    return engine.planned_device_bytes() if isinstance(engine, PlansMemory) else None
