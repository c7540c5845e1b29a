"""The masking audit: does a robust accuracy measure robustness, or an attack that could not see?

The checklist of Carlini et al. ("On Evaluating Adversarial Robustness", 2019), Athalye et al. (ICML 2018), Croce & Hein
(ICML 2020) and Pintor et al. (NeurIPS 2022), run by itself on a float model, a twin or an engine. Every threshold
stands beside its check and was fixed before the first honest network was audited.
"""

from __future__ import annotations

from rctk.audit.examined import Examined
from rctk.audit.result import CheckResult, Verdict, worst
from rctk.audit.run import CHECKS, Audit, audit

__all__ = ["CHECKS", "Audit", "CheckResult", "Examined", "Verdict", "audit", "worst"]
