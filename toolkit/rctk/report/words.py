"""How numbers and names are printed: units, counts, and nothing that a terminal or a page could take for a command."""

from __future__ import annotations

import re
from typing import Any

MISSING = "-"
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff]")
"""Control characters, marks that reverse the reading direction, and what neither XML nor UTF-8 can hold."""
MARKDOWN = re.compile(r"([\\`*_\[\]|~])")


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: Any, longest: int = 60) -> str:
    r"""Return one printable line; a long one loses its middle.

    Example:
        >>> text("a\x1b[31m\nb"), text("abcdefghij", longest=5), text(None)
        ('a [31m b', 'ab…ij', '-')
    """
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        value = ", ".join(f"{key} {item}" for key, item in value.items())
    if value is None or value == "":
        return MISSING
    line = UNSAFE.sub(" ", str(value))
    head = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[:head]}…{line[len(line) - (longest - 1 - head) :]}"


def number(value: Any, pattern: str = "{:,.0f}") -> str:
    """Format a number, or a dash where there is none."""
    return pattern.format(value) if is_number(value) else MISSING


def percent(value: Any) -> str:
    """Print a share.

    Example:
        >>> percent(0.9125), percent(None)
        ('91.2 %', '-')
    """
    return number(100 * value if is_number(value) else None, "{:.1f} %")


def percent_between(value: Any, low: Any, high: Any) -> str:
    """Print a share with its interval.

    Example:
        >>> percent_between(0.5, 0.366, 0.634)
        '50.0 % [36.6, 63.4]'
    """
    if not (is_number(low) and is_number(high)):
        return percent(value)
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: Any, digits: int = 1) -> str:
    """Print a difference of shares in percentage points, with its sign.

    Example:
        >>> points(-0.014), points(0.0004), points(-0.01996, 2)
        ('-1.4', '0.0', '-2.00')
    """
    if not is_number(value):
        return MISSING
    rounded = round(100 * value, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def points_between(value: Any, low: Any, high: Any) -> str:
    """Print a difference of shares with its interval, in points."""
    return f"{points(value)} [{points(low)}, {points(high)}]" if is_number(low) and is_number(high) else points(value)


def p_value(value: Any) -> str:
    """Print a p-value with two digits that count.

    Example:
        >>> p_value(0.03125), p_value(0.0001), p_value(1.0)
        ('0.031', '< 0.001', '1.000')
    """
    return "< 0.001" if is_number(value) and value < 0.001 else number(value, "{:.3f}")


def milliseconds(value: Any) -> str:
    """Print a time with three digits that count.

    Example:
        >>> [milliseconds(value) for value in (0.01234, 1.2345, 123.45)]
        ['0.0123', '1.23', '123']
    """
    if not is_number(value):
        return MISSING
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def size(value: Any) -> str:
    """Print bytes in the unit that reads best; powers of 1024.

    Example:
        >>> size(999), size(286_720), size(45_000_000)
        ('999 B', '280.0 KiB', '42.9 MiB')
    """
    if not is_number(value):
        return MISSING
    power = 0
    while value >= 1024 and power < len(BYTE_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.{min(power, 1)}f} {BYTE_UNITS[power]}"


def budget(norm: Any, eps: Any) -> str:
    """Print a threat model as users write it.

    Example:
        >>> budget("linf", 8 / 255), budget("l2", 0.5), budget(None, None)
        ('linf 8/255', 'l2 0.5', '-')
    """
    if not is_number(eps):
        return text(norm)
    levels = round(255 * eps)
    in_levels = norm != "l2" and levels >= 1 and abs(255 * eps - levels) < 1e-6
    return f"{text(norm)} {levels}/255" if in_levels else f"{text(norm)} {eps:g}"


def markdown(value: Any) -> str:
    r"""Return text that Markdown prints as it stands, also within a table cell.

    Example:
        >>> markdown("a|b <i>")
        'a\\|b &lt;i&gt;'
    """
    escaped = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKDOWN.sub(r"\\\1", escaped)


def allowed_drop(share: float) -> str:
    """Word a margin.

    Example:
        >>> allowed_drop(0.02), allowed_drop(0.01)
        ('2 points', '1 point')
    """
    value = f"{100 * share:g}"
    return f"{value} point" if value == "1" else f"{value} points"
