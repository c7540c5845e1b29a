"""Run images through a float graph and learn the range of every tensor that a plan quantizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
import torch
from torch import Tensor

from rctk.attacks.pgd import PGD
from rctk.quantize.observer import Calibrator, Observer
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import DataError

Ranges = dict[str, tuple[float, float]]
Kind = Literal["clean", "adv", "mix"]
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Images:
    """Which images calibration sees.

    Attributes:
        kind: ``clean``; ``adv`` turns every image into a PGD image against the float graph; ``mix`` every other one.
            Clipping decides how perturbations propagate, so a range can be learned from perturbed images.
        eps: Budget of PGD, linf.
        steps: Of PGD; all of them are made, so that confident images move as far as others.
    """

    kind: Kind = "clean"
    eps: float = 8 / 255
    steps: int = 10

    def __call__(self, model: OnnxModule, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return what calibration sees of ``images`` ``(N, C, H, W)``, in the same order."""
        if self.kind == "clean":
            return images
        rows = torch.arange(len(images))[:: 1 if self.kind == "adv" else 2]
        with torch.no_grad():
            labels = model(images[rows]).argmax(dim=1)
        attack = PGD(steps=self.steps, stop_at_success=False)
        changed = images.clone()
        changed[rows] = attack(model, images[rows], labels, ThreatModel(eps=self.eps), generator).detach()
        return changed


@dataclass
class _Watch:
    """A hook that shows an observer its tensor while the values are still in the cache."""

    observer: Observer

    def __call__(self, values: Tensor) -> Tensor:
        self.observer.update(values)
        return values


def calibrate(  # noqa: PLR0913  # four of them have defaults
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: FloatNCHW,
    calibrator: Calibrator,
    progress: Callable[[int], None] = lambda _: None,
    *,
    bits: Callable[[str], int] = lambda _: 8,
    kind: Images | None = None,
    seed: int = 0,
) -> Ranges:
    """Return the range of each tensor over ``images``.

    Args:
        model: Float graph.
        tensors: Names in the graph.
        images: ``(N, C, H, W)`` in [0, 1]; memory does not grow with ``N``.
        calibrator: Makes one observer per tensor.
        progress: Called with the number of images of each finished batch.
        bits: Width of the codes of a tensor.
        kind: Clean images by default.
        seed: Of the random start of PGD.

    Raises:
        DataError: There is no image.
    """
    if not len(images):
        raise DataError("the calibration set is empty; give --calibration a split with images")
    module, kind = OnnxModule(model).requires_grad_(False), kind or Images()
    generator = torch.Generator().manual_seed(seed)
    observers = {name: calibrator.observer(bits(name)) for name in tensors}
    for start in range(0, len(images), BATCH):
        module.rewrite = {}
        batch = kind(module, torch.from_numpy(images[start : start + BATCH]), generator)
        module.rewrite = {name: _Watch(observer) for name, observer in observers.items()}
        with torch.inference_mode():
            module(batch)
        progress(len(batch))
    return {name: observer.range() for name, observer in observers.items()}
