"""Operators that pick entries by their coordinates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op


def gather_nd(node: Node) -> Op:
    """Pick blocks by the coordinates in the last axis of the indices; negative ones count from the end.

    PyTorch's pooling to a size that does not divide the image, and picking channels by a list, become this operator.
    """
    batch = int(node.get("batch_dims", 0))

    def run(x: Tensor, index: Tensor) -> Tensor:
        index = index.to(x.device)
        if not batch:
            return x[index.unbind(-1)]
        rows, depth = x.flatten(0, batch - 1), index.shape[-1]
        places = index.reshape(len(rows), -1, depth)
        entries = torch.arange(len(rows), device=x.device)[:, None]
        picked = rows[(entries, *places.unbind(-1))]
        return picked.reshape(*x.shape[:batch], *index.shape[batch:-1], *x.shape[batch + depth :])

    return run


GATHERING: dict[str, Callable[[Node], Op]] = {"GatherND": gather_nd}
"""Operator to builder."""
