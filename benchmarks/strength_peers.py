"""What torchattacks, Foolbox, ART and pyautoattack offer, each as one function on the same arguments.

A peer gets the counted model, a batch, the budget and a seed, and returns candidates; who is broken is judged outside.
Budgets are those of our attack beside it. Where a library has a defect that our facts name, the remedy is not applied:
a user would meet the defect too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from rctk.threat import ThreatModel

Peer: TypeAlias = Callable[[nn.Module, Tensor, Tensor, ThreatModel, int], Tensor]
"""``(model, x (N, C, H, W), y (N,), threat, seed)`` to candidates ``(N, C, H, W)``."""
OFFICIAL = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STEP = 2.5 / 40
"""Step of PGD as a share of the budget, ours and theirs."""


def available(library: str) -> bool:
    """Say whether a peer can be imported."""
    try:
        importlib.import_module(MODULES[library])
    except ImportError:
        return False
    return True


MODULES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "ART": "art.attacks.evasion",
    "pyautoattack": "pyautoattack",
}


def torchattacks(
    name: str, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, **kw: Any
) -> Tensor:
    """Run an attack of torchattacks."""
    settings = {key: value(threat) if callable(value) else value for key, value in kw.items()}
    if settings.pop("seeded", False):
        settings["seed"] = seed
    attack = getattr(importlib.import_module("torchattacks"), name)(model, **settings)
    attack.set_device("cpu")
    torch.manual_seed(seed)
    found: Tensor = attack(x, y)
    return found


def foolbox(name: str, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, **kw: Any) -> Tensor:
    """Run an attack of Foolbox; ``bounded=False`` asks a minimum-norm attack for the closest images."""
    library, settings = importlib.import_module("foolbox"), dict(kw)
    bounded = settings.pop("bounded", True)
    attack = getattr(library.attacks, name)(**settings)
    torch.manual_seed(seed)
    host = library.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    found: Tensor = attack(host, x, y, epsilons=threat.eps if bounded else None)[1 if bounded else 0]
    return found


def art(name: str, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, **kw: Any) -> Tensor:
    """Run an attack of ART on gradients; ``told=False`` where it takes labels for targets."""
    evasion = importlib.import_module("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    host = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0), device_type="cpu"
    )
    settings = {key: value(threat) if callable(value) else value for key, value in kw.items()}
    labels = np.eye(classes, dtype=np.float32)[y.numpy()] if settings.pop("told", True) else None
    np.random.seed(seed)  # noqa: NPY002 - ART draws from the global state
    torch.manual_seed(seed)
    attack = getattr(evasion, name)(host, **settings)
    return torch.from_numpy(attack.generate(x.numpy(), labels).astype(np.float32))


def pyautoattack(version: str, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Run the reference AutoAttack."""
    library = importlib.import_module("pyautoattack")
    attack = library.AutoAttack(model, norm=OFFICIAL[threat.norm], eps=threat.eps, version=version, seed=seed)
    found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return found


def eps(threat: ThreatModel) -> float:
    """Return the radius."""
    return threat.eps


def share(part: float) -> Callable[[ThreatModel], float]:
    """Return the function to a share of the radius."""
    return lambda threat: part * threat.eps


def _order(threat: ThreatModel) -> Any:
    return np.inf if threat.norm == "linf" else 2


def _art_apgd(loss: str) -> Peer:
    return partial(
        art,
        "AutoProjectedGradientDescent",
        norm=_order,
        eps=eps,
        eps_step=share(2.0),
        max_iter=100,
        nb_random_init=1,
        batch_size=128,
        loss_type=loss,
        verbose=False,
    )


def _official(threat: ThreatModel) -> str:
    return OFFICIAL[threat.norm]


_APGD: dict[str, Any] = {"norm": _official, "eps": eps, "steps": 100, "seeded": True}
_ART: dict[str, Any] = {"batch_size": 128, "verbose": False}
_ART_PGD = partial(
    art,
    "ProjectedGradientDescentPyTorch",
    norm=_order,
    eps=eps,
    eps_step=share(STEP),
    max_iter=40,
    num_random_init=1,
    **_ART,
)

PEERS: dict[str, dict[str, Peer]] = {
    "fgsm": {
        "torchattacks": partial(torchattacks, "FGSM", eps=eps),
        "foolbox": partial(foolbox, "LinfFastGradientAttack"),
        "ART": partial(art, "FastGradientMethod", norm=_order, eps=eps, batch_size=128),
    },
    "bim": {
        "torchattacks": partial(torchattacks, "BIM", eps=eps, alpha=share(0.25), steps=10),
        "foolbox": partial(foolbox, "LinfBasicIterativeAttack", rel_stepsize=0.25, steps=10),
        "ART": partial(art, "BasicIterativeMethod", eps=eps, eps_step=share(0.25), max_iter=10, **_ART),
    },
    "pgd linf": {
        "torchattacks": partial(torchattacks, "PGD", eps=eps, alpha=share(STEP), steps=40),
        "foolbox": partial(foolbox, "LinfPGD", rel_stepsize=STEP, steps=40),
        "ART": _ART_PGD,
    },
    "pgd l2": {
        "torchattacks": partial(torchattacks, "PGDL2", eps=eps, alpha=share(STEP), steps=40),
        "foolbox": partial(foolbox, "L2PGD", rel_stepsize=STEP, steps=40),
        "ART": _ART_PGD,
    },
    "mifgsm": {
        "torchattacks": partial(torchattacks, "MIFGSM", eps=eps, alpha=share(0.1), steps=10, decay=1.0),
        "ART": partial(art, "MomentumIterativeMethod", norm=_order, eps=eps, eps_step=share(0.1), max_iter=10, **_ART),
    },
    "apgd-ce linf": {
        "torchattacks": partial(torchattacks, "APGD", loss="ce", **_APGD),
        "ART": _art_apgd("cross_entropy"),
    },
    "apgd-ce l2": {
        "torchattacks": partial(torchattacks, "APGD", loss="ce", **_APGD),
        "ART": _art_apgd("cross_entropy"),
    },
    "apgd-dlr": {
        "torchattacks": partial(torchattacks, "APGD", loss="dlr", **_APGD),
        "ART": _art_apgd("difference_logits_ratio"),
    },
    "apgd-t": {"torchattacks": partial(torchattacks, "APGDT", **_APGD)},
    "fab-t": {
        "torchattacks": partial(
            torchattacks, "FAB", norm=_official, eps=eps, steps=100, seeded=True, multi_targeted=True, n_classes=10
        )
    },
    "square linf": {
        "torchattacks": partial(torchattacks, "Square", norm=_official, eps=eps, n_queries=1000, seeded=True),
        "ART": partial(art, "SquareAttack", norm=_order, eps=eps, max_iter=1000, p_init=0.8, **_ART),
    },
    "square l2": {
        "torchattacks": partial(torchattacks, "Square", norm=_official, eps=eps, n_queries=1000, seeded=True),
    },
    "cw-l2": {
        "foolbox": partial(foolbox, "L2CarliniWagnerAttack", steps=200, binary_search_steps=5, bounded=False),
        "torchattacks": partial(torchattacks, "CW", c=1, kappa=0, steps=1000, lr=0.01),
    },
    "cw-linf": {"ART": partial(art, "CarliniLInfMethod", max_iter=10, **_ART)},
    "deepfool": {
        "foolbox": partial(foolbox, "L2DeepFoolAttack", steps=50, bounded=False),
        "torchattacks": partial(torchattacks, "DeepFool", steps=50),
        "ART": partial(art, "DeepFool", max_iter=50, epsilon=0.02, **_ART),
    },
    "ddn": {"foolbox": partial(foolbox, "DDNAttack", steps=100, bounded=False)},
    "fmn l2": {"foolbox": partial(foolbox, "L2FMNAttack", steps=100, bounded=False)},
    "fmn linf": {"foolbox": partial(foolbox, "LInfFMNAttack", steps=100, bounded=False)},
    "jsma": {
        "torchattacks": partial(torchattacks, "JSMA", theta=1.0, gamma=0.05),
        "ART": partial(art, "SaliencyMapMethod", theta=1.0, gamma=0.05, told=False, **_ART),
    },
    "autoattack": {"pyautoattack": partial(pyautoattack, "standard")},
}
"""Peers of each row of ``attack_strength.ROWS``; the first word of a name is the library."""
