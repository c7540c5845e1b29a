"""What every model must pass on its way in, whatever file it came from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError


def refuse_non_finite(module: nn.Module, path: Path) -> None:
    """Raise :class:`ModelError` that names the first tensor with a NaN or an infinity."""
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ModelError(
                f"{path}: {name} holds {bad} NaN or Inf of {value.numel()} values; "
                "training has diverged, take an earlier checkpoint"
            )


def count_classes(module: nn.Module, spec: InputSpec, path: Path) -> int:
    """Run the module on two images, one of them zeros, and return ``K``.

    The images also go through one by one: a module whose answer for an image depends on the rest of the batch is not in
    evaluation mode, or not a classifier.
    """
    shape = "x".join(str(size) for size in spec.shape)
    images = torch.zeros(2, *spec.shape)
    images[1] = torch.linspace(-1, 1, images[1].numel()).reshape(spec.shape)
    try:
        with torch.no_grad():
            logits = module(images)
            alone = [module(image[None]) for image in images]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} does not run on images {shape}: {reason}; check --input, or --arch") from error
    if not isinstance(logits, Tensor):
        size = f" of {len(logits)}" if isinstance(logits, (tuple, list, dict)) else ""
        raise ModelError(
            f"{path} returns a {type(logits).__name__}{size}, expected one tensor of logits (N, K); give an --arch "
            "factory that returns the logits alone"
        )
    if logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        raise ModelError(f"{path} returns {tuple(logits.shape)} for 2 images {shape}, expected logits (2, K), K >= 2")
    if logits.dtype != torch.float32:
        raise ModelError(f"{path} returns {logits.dtype} logits, expected torch.float32; save it in float32")
    if not torch.isfinite(logits).all():
        raise ModelError(f"{path} returns NaN or Inf for an image of zeros; check --arch and its weights")
    if not torch.allclose(logits, torch.cat(alone), rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        raise ModelError(
            f"{path}: the logits of an image change with the rest of its batch; capture the model after "
            "model.eval(), with BatchNorm and dropout in evaluation mode"
        )
    return logits.shape[1]
