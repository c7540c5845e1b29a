"""Runs attacks of torchattacks 3.5.1 without the side effects that its calls have.

rctk's own ``fgsm``, ``pgd``, ``apgd-ce`` and ``apgd-t`` do not use torchattacks: they drop broken images, keep the best
iterate of the others, draw every image's start from its own stream and give each image its own step size. The
``torchattacks-*`` attacks exist to check them against independent code. What is corrected here:

- the global random state is put back, and the seed of each call depends on the user's seed and on the images;
- the mode of every submodule and ``requires_grad`` are put back, also after an error;
- models that refuse ``eval()`` or hold no parameters work;
- images outside [0, 1], other types than float32, models without a gradient, and class counts that an attack cannot
  handle are refused in one sentence; steps are always passed.

What stays, being theirs: PGD returns its last iterate, Auto-PGD returns survivors unchanged, nothing leaves the batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rctk.attacks.ball import draw_base
from rctk.attacks.draws import image_seeds
from rctk.attacks.gradients import frozen, look
from rctk.attacks.losses import negative_margin
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError

INSTALL = "pip install --no-deps torchattacks==3.5.1"

Build = Callable[[Any, nn.Module, int, int], Any]
"""``(torchattacks, model, classes, seed)`` to one of its attacks."""


class Host(nn.Module):
    """Stands between torchattacks and a model: has a device, and no mode to switch."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.inner = (model,)  # in a tuple, so that its parameters and modes are not ours to change
        self.place = nn.Parameter(torch.zeros((), device=device), requires_grad=False)
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the model."""
        logits: Tensor = self.inner[0](x)
        return logits

    def train(self, mode: bool = True) -> Host:
        """Change nothing."""
        del mode
        return self


def run(
    build: Build, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, *, at_once: int | None = None
) -> Tensor:
    """Attack ``x`` and return what torchattacks returns.

    Args:
        build: Makes the attack.
        model: Images in [0, 1] to logits.
        x: ``(N, C, H, W)`` float32.
        y: ``(N,)``.
        generator: Source of the seed.
        at_once: Images per call; ``None`` for all.
    """
    package = _package()
    if x.dtype != torch.float32 or not bool(((x >= 0) & (x <= 1)).all()):
        raise DataError("torchattacks needs float32 images in [0, 1]; keep normalisation inside the model")
    if not len(x):
        return x.clone()
    base = draw_base(generator)
    with frozen(model), torch.enable_grad(), torch.random.fork_rng(devices=_devices()):
        look(model, x[:1], y[:1], y[:1], negative_margin, until_broken=False)  # refuses a model without gradients
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        parts = []
        for images, labels in zip(x.split(at_once or len(x)), y.split(at_once or len(x)), strict=True):
            seed = int(image_seeds(images[:1].cpu().numpy(), base)[0] >> 32)
            torch.random.manual_seed(seed)
            parts.append(build(package, Host(model, x.device), classes, seed)(images, labels).detach())
    return torch.cat(parts)


def linf_only(threat: ThreatModel, name: str) -> None:
    """Refuse l2 for an attack that has no l2 form."""
    if threat.norm != "linf":
        raise AttackError(f"{name} runs in linf only, got {threat.norm}; use its counterpart without torchattacks-")


def _package() -> Any:
    try:
        return importlib.import_module("torchattacks")
    except ImportError as error:
        raise AttackError(f"the torchattacks-* attacks need torchattacks; install it with `{INSTALL}`") from error


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count()))
