"""Attacks by name. Each is one module with one frozen dataclass; query attacks need NumPy only."""

from __future__ import annotations

from rctk.attacks.attack import Attack, kind
from rctk_export.registry import Family

__all__ = ["ATTACKS", "kind"]

ATTACKS: Family[Attack] = Family(
    "attack",
    {
        "apgd-ce": "rctk.attacks.apgd_ce:APGDCrossEntropy",
        "apgd-dlr": "rctk.attacks.apgd_dlr:APGDRatio",
        "apgd-t": "rctk.attacks.apgd_t:APGDTargeted",
        "bim": "rctk.attacks.bim:BIM",
        "fgsm": "rctk.attacks.fgsm:FGSM",
        "mifgsm": "rctk.attacks.mifgsm:MIFGSM",
        "noise": "rctk.attacks.noise:Noise",
        "pgd": "rctk.attacks.pgd:PGD",
        "rfgsm": "rctk.attacks.rfgsm:RFGSM",
        "square": "rctk.attacks.square:Square",
        # cross-checks: the same attacks as torchattacks runs them, see rctk.attacks.torchattacks_host
        "torchattacks-apgd-ce": "rctk.attacks.torchattacks_apgd_ce:TorchattacksAPGDCrossEntropy",
        "torchattacks-apgd-t": "rctk.attacks.torchattacks_apgd_t:TorchattacksAPGDTargeted",
        "torchattacks-fgsm": "rctk.attacks.torchattacks_fgsm:TorchattacksFGSM",
        "torchattacks-pgd": "rctk.attacks.torchattacks_pgd:TorchattacksPGD",
    },
)
