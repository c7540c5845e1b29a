"""The Auto-PGD that belongs to a norm."""

from __future__ import annotations

from rctk.attacks.apgd import AutoPgd
from rctk.attacks.apgd_l1 import PHASES, SparsePgd
from rctk.attacks.losses import Loss
from rctk.threat import ThreatModel

EXTRA = len(PHASES)
"""Most forward passes of a run beyond two per step: one for each start."""


def auto_pgd(threat: ThreatModel, *, steps: int, loss: Loss, stop: bool, draws: int) -> AutoPgd | SparsePgd:
    """Return the run for ``threat``: both have ``start(ball, base, stream=...)`` and ``run(...)``."""
    method = SparsePgd if threat.norm == "l1" else AutoPgd
    return method(steps=steps, loss=loss, stop=stop, draws=draws)
