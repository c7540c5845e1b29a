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
        "autoattack": "rctk.attacks.autoattack:AutoAttack",
        "bim": "rctk.attacks.bim:BIM",
        "border-walk": "rctk.attacks.border_walk:BorderWalk",
        "cw-l2": "rctk.attacks.cw_l2:CarliniWagnerL2",
        "cw-linf": "rctk.attacks.cw_linf:CarliniWagnerLinf",
        "ddn": "rctk.attacks.ddn:DDN",
        "deepfool": "rctk.attacks.deepfool:DeepFool",
        "disagreement": "rctk.attacks.disagreement:Disagreement",
        "diva": "rctk.attacks.diva:DIVA",
        "fab": "rctk.attacks.fab:FAB",
        "fab-t": "rctk.attacks.fab_t:FABTargeted",
        "fgsm": "rctk.attacks.fgsm:FGSM",
        "fmn": "rctk.attacks.fmn:FMN",
        "hopskipjump": "rctk.attacks.hopskipjump:HopSkipJump",
        "jsma": "rctk.attacks.jsma:JSMA",
        "mifgsm": "rctk.attacks.mifgsm:MIFGSM",
        "nes": "rctk.attacks.nes:NES",
        "noise": "rctk.attacks.noise:Noise",
        "patch": "rctk.attacks.patch:Patch",
        "pgd": "rctk.attacks.pgd:PGD",
        "pgd-hns": "rctk.attacks.pgd_hns:PGDHNS",
        "pgd-njs": "rctk.attacks.pgd_njs:PGDNJS",
        "rays": "rctk.attacks.rays:RayS",
        "rfgsm": "rctk.attacks.rfgsm:RFGSM",
        "signhunter": "rctk.attacks.signhunter:SignHunter",
        "simba": "rctk.attacks.simba:SimBA",
        "spsa": "rctk.attacks.spsa:SPSA",
        "square": "rctk.attacks.square:Square",
        "substitute": "rctk.attacks.substitute:SubstituteAttack",
        "surfree": "rctk.attacks.surfree:SurFree",
        "transfer": "rctk.attacks.transfer_fgsm:TransferFGSM",
        "wrm": "rctk.attacks.wrm:WRM",
        "zoo": "rctk.attacks.zoo:ZOO",
        # cross-checks: the same attacks as torchattacks runs them, see rctk.attacks.torchattacks_host
        "torchattacks-apgd-ce": "rctk.attacks.torchattacks_apgd_ce:TorchattacksAPGDCrossEntropy",
        "torchattacks-apgd-t": "rctk.attacks.torchattacks_apgd_t:TorchattacksAPGDTargeted",
        "torchattacks-fgsm": "rctk.attacks.torchattacks_fgsm:TorchattacksFGSM",
        "torchattacks-pgd": "rctk.attacks.torchattacks_pgd:TorchattacksPGD",
    },
    listed="attacks",
)
