"""How numbers are printed and read on the command line."""

from __future__ import annotations

LEVELS = 255


def setting(value: object) -> str | None:
    """Print a default for a help page; None where there is nothing to say.

    Example:
        >>> setting(8 / 255), setting(("cpu", "tensorrt")), setting((1 / 255, 2 / 255)), setting(())
        ('8/255', 'cpu, tensorrt', '1/255, 2/255', None)
    """
    if value is None or value is False or value in {"", ()}:
        return None
    if isinstance(value, tuple):
        return ", ".join(ratio(one) if isinstance(one, float) else str(one) for one in value)
    return ratio(value) if isinstance(value, float) else str(value)


def ratio(value: float) -> str:
    """Print a budget as people write it: in levels of 255 where it is a whole number of them.

    Example:
        >>> ratio(8 / 255), ratio(0.5), ratio(1.0)
        ('8/255', '0.5', '1')
    """
    levels = value * LEVELS
    whole = 0 < levels < LEVELS and abs(levels - round(levels)) < 1e-6
    return f"{round(levels)}/{LEVELS}" if whole else f"{value:g}"
