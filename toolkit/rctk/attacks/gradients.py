"""Forward and backward through the model under attack, touching nothing but its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rctk.attacks.losses import Loss
from rctk_kernels.errors import AttackError


class Look(NamedTuple):
    """What a model says about candidates.

    Attributes:
        loss: ``(N,)``.
        broken: ``(N,)`` bool; the predicted class is not the true one.
        margin: ``(N,)``; true logit minus the largest other one.
        gradient: ``(N, C, H, W)`` of the loss by the image; zeros where it was not asked for.
    """

    loss: Tensor
    broken: Tensor
    margin: Tensor
    gradient: Tensor


def look(  # noqa: PLR0913 - what is looked at, then how
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    gradient: bool = True,
    until_broken: bool = True,
) -> Look:
    """Classify ``x`` and differentiate ``loss`` by it, as many images at a time as :func:`at_once` says.

    Parameters receive no gradient, and a surrounding ``no_grad`` does not matter. :class:`AttackError` where no path
    leads from the logits back to the image.

    Args:
        model: Images to logits.
        x: Candidates ``(N, C, H, W)``.
        y: True labels ``(N,)``.
        target: ``(N,)``, for targeted losses.
        loss: What the attack maximises.
        gradient: Whether to differentiate at all.
        until_broken: Spare the backward pass where all of the batch is broken, because nobody goes on.
    """
    pieces = -(-len(x) // at_once(model, len(x)))
    if pieces > 1:
        cut = zip(x.tensor_split(pieces), y.tensor_split(pieces), target.tensor_split(pieces), strict=True)
        parts = [
            look(model, images, labels, goals, loss, gradient=gradient, until_broken=until_broken)
            for images, labels, goals in cut
        ]
        return Look(*(torch.cat(field) for field in zip(*parts, strict=True)))
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(gradient)
        logits = model(leaf)
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise AttackError(f"an attack needs logits (N, K) of two or more classes, got {tuple(logits.shape)}")
        values = loss(logits, y, target)
        total = values.sum()
    seen = logits.detach()
    broken = seen.argmax(dim=1) != y
    slope = torch.zeros_like(x)
    if gradient and not (until_broken and bool(broken.all())):
        slope = input_gradient(total, leaf)
    true = seen.gather(1, y[:, None])[:, 0]
    margin = true - seen.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return Look(loss=values.detach(), broken=broken, margin=margin, gradient=slope)


def at_once(model: nn.Module, count: int) -> int:
    """Return how many of ``count`` images may be in ``model`` at once: its ``batch_size`` where it has one, at least 1.

    The judge's model has one. It hands over more images than that, so that survivors of several batches share one.
    """
    return max(min(count, getattr(model, "batch_size", count)), 1)


def classify(model: nn.Module, x: Tensor) -> Tensor:
    """Return logits ``(N, K)`` without a gradient, as many images at a time as :func:`at_once` says."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(at_once(model, len(x)))])


def input_gradient(total: Tensor, x: Tensor, *, again: bool = False) -> Tensor:
    """Return the gradient of the scalar ``total`` by ``x``; :class:`AttackError` for a forward-only model.

    ``again`` keeps what other gradients through the same pass need.
    """
    if total.requires_grad:
        (slope,) = torch.autograd.grad(total, x, allow_unused=True, retain_graph=again)
        if slope is not None:
            return slope
    raise AttackError(
        "the model gives no gradient of its logits by the image, so a gradient attack cannot run on it; attack its "
        "float model or its twin, or use a query attack such as square"
    )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model into inference mode with constant parameters, and every part back as it was, also after an error.

    The mode is written to each submodule itself: modules captured by ``torch.export`` refuse ``eval()``, and a
    BatchNorm that was kept in inference mode inside a training model must come back so.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
