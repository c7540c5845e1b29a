"""Structured pruning: criteria score channels, couplings say which stand or fall together, steps remove them."""

from __future__ import annotations

from rctk.prune.criterion import Criterion
from rctk_export.registry import Family

CRITERIA: Family[Criterion] = Family(
    "pruning criterion",
    {
        "bn-scale": "rctk.prune.bn_scale:BnScale",
        "expected-abs": "rctk.prune.expected_abs:ExpectedAbs",
        "hrank": "rctk.prune.hrank:HRank",
        "kl": "rctk.prune.kl:Kl",
        "l1": "rctk.prune.l1:L1",
        "l2": "rctk.prune.l2:L2",
        "pls": "rctk.prune.pls:Pls",
        "random": "rctk.prune.at_random:AtRandom",
        "taylor": "rctk.prune.taylor:Taylor",
    },
)
"""Scores of channels; the least are removed first."""
