"""How `rctk serve` says which file it runs; server and client agree on this."""

from __future__ import annotations

OURS = "rctk_"
"""Platforms of `rctk serve` begin so."""
DIGITS = 12
"""So many digits of a file's SHA-256 are the version under which `rctk serve` serves it."""
EVALUATION = "-evaluation"
"""Ends the name under which `rctk serve` serves the file with logits that are not rounded."""
