"""Honest nets and planted cases of masked gradients, on digits; for tests and ``benchmarks/audit_verdicts.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from rctk.audit.examined import Scaled
from rctk.data import read_split

EPS = 0.1


class Net(nn.Module):
    def __init__(self, activation=F.relu) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 100), nn.Linear(100, 10)
        self.activation = activation

    def forward(self, x):
        return self.second(self.activation(self.first(x.flatten(1))))


def fit(net, steps=200, temperature=1.0, eps=0.0, rate=0.01):
    """Train on digits; with ``eps`` on one-step adversarial images from a random start, with temperature distilled."""
    generator = torch.Generator().manual_seed(0)
    train = read_split("digits:train")
    x, y = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=generator)[:256]
        batch, labels = x[rows], y[rows]
        if eps:
            start = batch + eps * (2 * torch.rand(batch.shape, generator=generator) - 1)
            leaf = start.clamp(0, 1).requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(net(leaf), labels), leaf)
            moved = leaf.detach() + 1.25 * eps * slope.sign()
            batch = torch.maximum(torch.minimum(moved, batch + eps), batch - eps).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(net(batch) / temperature, labels).backward()
        optimizer.step()
    return net.eval()


class Sign(torch.autograd.Function):
    """The sign, with a straight-through gradient for training."""

    @staticmethod
    def forward(_ctx, x):
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(_ctx, gradient):
        return gradient


class Wrapped(nn.Module):
    def __init__(self, module, before=None, after=None) -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x):
        x = x if self.before is None else self.before(x)
        logits = self.module(x)
        return logits if self.after is None else self.after(logits)


def jittered(x):
    """Shift every image by one pixel in a random direction, anew in each pass, like random resizing and padding."""
    down, right = (int(torch.randint(3, ())) for _ in range(2))
    return F.pad(x, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


def one_hot(logits):
    return F.one_hot(logits.argmax(1), logits.shape[1]).float()


def plain():
    """An ordinary net."""
    torch.manual_seed(0)
    return fit(Net())


def robust():
    """An adversarially trained net."""
    torch.manual_seed(0)
    return fit(Net(), steps=400, eps=EPS)


def barely():
    """Stopped after few small steps: logits near 1, on which cross-entropy is weak, but nothing is hidden."""
    torch.manual_seed(0)
    return fit(Net(), steps=50, rate=0.001)


def distilled():
    """Trained at temperature 100 and used at 1, as in defensive distillation."""
    torch.manual_seed(0)
    return fit(Net(), steps=300, temperature=100.0)


def sign_net():
    """Binary activations whose surrogate gradient was taken away after training."""
    torch.manual_seed(0)
    net = fit(Net(activation=Sign.apply))
    net.activation = torch.sign
    return net


WRAPPED: Mapping[str, tuple[Callable[[nn.Module], nn.Module], frozenset[str]]] = {
    "logits x 100": (
        lambda net: Scaled(net, 100.0),
        frozenset({"gradients.zero", "gradients.tiny", "strength.unbounded"}),
    ),
    "one-hot outputs": (lambda net: Wrapped(net, after=one_hot), frozenset({"outputs.logits", "gradients.zero"})),
    "softmax twice": (
        lambda net: Wrapped(net, after=lambda z: z.softmax(1).softmax(1)),
        frozenset({"outputs.logits"}),
    ),
    "input of 2 levels": (lambda net: Wrapped(net, before=torch.round), frozenset({"gradients.zero"})),
    "random shifts": (lambda net: Wrapped(net, before=jittered), frozenset({"outputs.repeat"})),
}
"""What hides the gradients of the plain net, and the checks that must fail for it."""
TRAINED: Mapping[str, tuple[Callable[[], nn.Module], frozenset[str]]] = {
    "distillation at 100": (distilled, frozenset({"gradients.zero", "gradients.tiny", "strength.unbounded"})),
    "sign net without surrogate": (
        sign_net,
        frozenset({"gradients.zero", "gradients.ascent", "strength.unbounded"}),
    ),
}
"""Nets that were trained so that gradients hide, and the checks that must fail."""
HONEST: Mapping[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "adversarially trained": robust,
    "barely trained": barely,
}
"""Nets that hide nothing."""
