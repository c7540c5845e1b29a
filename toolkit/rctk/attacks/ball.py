"""The budget of a threat model around a batch, as torch tensors, with the steps that stay inside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rctk.attacks.draws import image_seeds, noise_l2, normal, uniform
from rctk.attacks.l1 import shrink_l1
from rctk.threat import ThreatModel

_TINY = 1e-12


class Ball(NamedTuple):
    """Where candidates may lie.

    Attributes:
        x: Originals ``(N, C, H, W)``.
        low: Smallest value of each pixel: in linf ``max(x - eps, 0)``, else zeros.
        high: Largest value of each pixel.
        threat: Norm and radius.
    """

    x: Tensor
    low: Tensor
    high: Tensor
    threat: ThreatModel

    @classmethod
    def around(cls, x: Tensor, threat: ThreatModel) -> Ball:
        """Make the budget of ``threat`` around ``x``."""
        if threat.norm == "linf":
            return cls(x, (x - threat.eps).clamp(min=0), (x + threat.eps).clamp(max=1), threat)
        return cls(x, torch.zeros_like(x), torch.ones_like(x), threat)

    def keep(self, rows: Tensor) -> Ball:
        """Return the budget of the images ``rows``."""
        return Ball(self.x[rows], self.low[rows], self.high[rows], self.threat)

    def project(self, adv: Tensor) -> Tensor:
        """Return the images in the budget that stand for ``adv``: in linf and l1 the nearest ones.

        In l2 the image is clipped to [0, 1] first and its difference shortened then, which keeps it inside. The other
        way around, a long step against pixels that are already 0 or 1 would take its length from all other pixels.
        """
        if self.threat.norm == "l2":
            delta = adv.clamp(0, 1) - self.x
            adv = self.x + delta * (self.threat.eps / length(delta).clamp(min=_TINY)).clamp(max=1)
        elif self.threat.norm == "l1":
            delta = adv - self.x
            room = torch.where(delta > 0, 1 - self.x, self.x)
            adv = self.x + shrink_l1(delta, room, delta.new_full((len(delta),), self.threat.eps))
        return torch.clamp(adv, self.low, self.high)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return a step of length 1 uphill: signs in linf, else the gradient scaled in l2; zeros where it is zero."""
        if self.threat.norm == "linf":
            return gradient.sign()
        return gradient / length(gradient).clamp(min=_TINY)

    def start(self, base: int, *, stream: int, surface: bool = False) -> Tensor:
        """Draw a random start per image.

        Args:
            base: Seed, mixed with the pixels of each image.
            stream: Number of the restart.
            surface: Put it on the surface of the ball (Auto-PGD). Otherwise (PGD) it is uniform in the linf ball; in l2
                direction and radius are uniform, because a point uniform in the volume lies almost on the sphere, and
                PGD from there broke up to three images in a hundred fewer. In l1 it is Gaussian noise, projected.

        Returns:
            ``(N, C, H, W)``, clipped to [0, 1].
        """
        seeds = image_seeds(self.x.detach().cpu().numpy(), base)
        shape = tuple(self.x.shape[1:])
        if self.threat.norm == "linf":
            noise = torch.from_numpy(2 * uniform(seeds, shape, stream=2 * stream) - 1)
            if surface:
                noise = noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=_TINY)
        elif self.threat.norm == "l1":
            return self.project(self.x + torch.from_numpy(normal(seeds, shape, stream=2 * stream)).to(self.x.device))
        else:
            noise = torch.from_numpy(noise_l2(seeds, shape, stream=2 * stream))
            if not surface:
                noise = noise * torch.from_numpy(uniform(seeds, (1, 1, 1), stream=2 * stream + 1))
        return self.project(self.x + self.threat.eps * noise.to(self.x.device))


def length(delta: Tensor) -> Tensor:
    """Return the l2 length of each image, ``(N, 1, 1, 1)``."""
    result: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return result


def draw_base(generator: torch.Generator) -> int:
    """Draw the number that random starts mix with each image."""
    return int(torch.randint(2**62, (), generator=generator))
