"""Checks of an attack's settings, each with one sentence for whoever typed them."""

from __future__ import annotations

import math
from typing import Any

from rctk_kernels.errors import OptionError


def at_least(attack: Any, least: int, *fields: str) -> None:
    """Refuse settings below ``least``, and those that are not finite."""
    for field in fields:
        value = getattr(attack, field)
        if not (math.isfinite(value) and value >= least):
            raise OptionError(f"{attack.name}:{field} must be at least {least}, got {value}")


def positive(attack: Any, *fields: str) -> None:
    """Refuse settings that are not positive finite numbers."""
    for field in fields:
        value = getattr(attack, field)
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{attack.name}:{field} must be a positive number, got {value}")


def share(attack: Any, *fields: str) -> None:
    """Refuse settings outside [0, 1)."""
    for field in fields:
        value = getattr(attack, field)
        if not 0 <= value < 1:
            raise OptionError(f"{attack.name}:{field} is a share in [0, 1), got {value}")
