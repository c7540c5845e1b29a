"""Trains a substitute on an engine's classes, with images that cross its borders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.attacks.attack import Predict, Rows, query
from rctk.attacks.gradients import frozen, input_gradient
from rctk.data.split import Labels
from rctk.substitute.network import substitute_network
from rctk.substitute.settings import SubstituteSettings
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError

CHUNK = 256
"""Most images in one query to the engine, and in one pass through the substitute outside of training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Substitute:
    """A network that imitates an engine.

    Attributes:
        model: Images in [0, 1] to logits, in inference mode.
        queries: Images that the engine labelled.
        agreement: For each round the share of its new images on which the substitute, before it was trained on them,
            named the engine's class.
    """

    model: nn.Module
    queries: int
    agreement: tuple[float, ...]


def train_substitute(predict: Predict, seeds: FloatNCHW, settings: SubstituteSettings, *, seed: int) -> Substitute:
    """Train a network on what ``predict`` names, and on nothing else: no labels, no logits, no gradients.

    In every round each image gets a neighbour a step along, or against, the sign of the substitute's gradient for
    the engine's class, where the substitute changes most; the engine labels it; training goes on with all of them.
    The global random state is as before.

    Args:
        predict: The engine; only the argmax of its answers is used.
        seeds: ``(N, C, H, W)``; ten to fifteen images of each class are enough. Queries are booked to the seed that an
            image descends from, where ``predict`` keeps such books.
        settings: All settings.
        seed: Same seed, same engine, same machine: same network.

    Reference:
        Papernot et al., "Practical Black-Box Attacks against Machine Learning", ASIA CCS 2017, algorithm 1 and
        section 6. https://arxiv.org/abs/1602.02697
    """
    if not len(seeds):
        raise DataError("a substitute needs seed images, got 0; give ten or more of each class")
    generator = torch.Generator().manual_seed(seed)
    rows = np.arange(len(seeds))
    images, (labels, classes) = seeds, _label(predict, seeds, rows)
    agreement = []
    with _global_generator_kept(seed):
        model = substitute_network((seeds.shape[1], seeds.shape[2], seeds.shape[3]), classes, settings.arch)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        _fit(model, optimizer, images, labels, settings, generator)
        for number in range(settings.rounds):
            chosen = _chosen(len(images), number, settings, generator)
            sign = -1.0 if number // settings.turn % 2 else 1.0
            fresh = _stepped(model, images[chosen], labels[chosen], sign * settings.step)
            answers, _ = _label(predict, fresh, rows[chosen])
            agreement.append(float((classify_all(model, fresh) == answers).mean()))
            images, labels = np.concatenate([images, fresh]), np.concatenate([labels, answers])
            rows = np.concatenate([rows, rows[chosen]])
            _fit(model, optimizer, images, labels, settings, generator)
    return Substitute(model=model.eval(), queries=len(images), agreement=tuple(agreement))


def _label(predict: Predict, images: FloatNCHW, rows: Rows) -> tuple[Labels, int]:
    """Return the engine's classes ``(n,)``, and how many classes it knows."""
    parts = [
        query(predict, np.ascontiguousarray(images[start : start + CHUNK]), rows[start : start + CHUNK])
        for start in range(0, len(images), CHUNK)
    ]
    return np.concatenate([logits.argmax(axis=1) for logits in parts]), parts[0].shape[1]


def _chosen(count: int, number: int, settings: SubstituteSettings, generator: torch.Generator) -> Rows:
    """Return which images get a neighbour in round ``number``: all of them, later a sample."""
    if number < settings.doubling or count <= settings.reservoir:
        return np.arange(count)
    return np.sort(torch.randperm(count, generator=generator)[: settings.reservoir].numpy())


def _stepped(model: nn.Module, images: FloatNCHW, labels: Labels, step: float) -> FloatNCHW:
    """Move images along the sign of the gradient of the logit of their label, inside [0, 1]."""
    parts = []
    with frozen(model):
        for x, y in zip(torch.from_numpy(images).split(CHUNK), torch.from_numpy(labels).split(CHUNK), strict=True):
            leaf = x.clone().requires_grad_()
            logits: Tensor = model(leaf)
            slope = input_gradient(logits.gather(1, y[:, None]).sum(), leaf)
            parts.append((x + step * slope.sign()).clamp(0, 1))
    return np.asarray(torch.cat(parts).numpy())


def classify_all(model: nn.Module, images: FloatNCHW) -> Labels:
    """Return the classes that a torch model on the CPU names, ``(N,)``."""
    with frozen(model), torch.no_grad():
        logits = torch.cat([model(x) for x in torch.from_numpy(images).split(CHUNK)])
    return np.asarray(logits.argmax(dim=1).numpy())


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: FloatNCHW,
    labels: Labels,
    settings: SubstituteSettings,
    generator: torch.Generator,
) -> None:
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    model.train()
    for _ in range(settings.epochs):
        order = torch.randperm(len(x), generator=generator)
        for batch in order.tensor_split(-(-len(x) // settings.batch_size)):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _global_generator_kept(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the block only: initial weights and dropout take no other."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
