"""Channels by how well they explain the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rctk.prune.criterion import ChannelGroup, Need, mean_over_layers
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Pls:
    """Variable importance in projection of a partial-least-squares regression of pooled channels on labels.

    The importance of channel ``j`` is ``sqrt(C sum_a SS_a (w_aj / |w_a|)^2 / sum_a SS_a)``, where ``SS_a`` is the
    variance of the labels that component ``a`` explains. A constant channel has importance 0.

    Attributes:
        components: Components of the regression, at most as many as channels and classes allow.

    Reference:
        Jordao et al., "Discriminative Layer Pruning for Convolutional Neural Networks", IEEE JSTSP 14(4), 2020; the
        importance is that of Wold et al., "PLS-regression: a basic tool of chemometrics", 2001.
        https://doi.org/10.1016/S0169-7439(01)00155-1
    """

    need: ClassVar[Need] = "maps"

    components: int = 2

    def __post_init__(self) -> None:
        if self.components < 1:
            raise OptionError(f"pls needs at least one component, got {self.components}")

    def __call__(self, group: ChannelGroup) -> Tensor:
        """Return ``(C,)``; the mean of the squares over channels is 1."""
        assert group.labels is not None
        labels = group.labels.cpu().numpy()
        targets = np.equal.outer(labels, np.unique(labels)).astype(np.float64)
        scores = [self._importance(maps.mean(dim=(2, 3)).double().cpu().numpy(), targets) for maps in group.maps]
        return mean_over_layers([torch.from_numpy(score).float() for score in scores])

    def _importance(self, pooled: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        from sklearn.cross_decomposition import PLSRegression  # noqa: PLC0415  one criterion among many needs it

        moving = np.ptp(pooled, axis=0) > 0
        score = np.zeros(pooled.shape[1])
        count = min(self.components, int(moving.sum()), targets.shape[1], len(pooled) - 1)
        if count < 1 or targets.shape[1] < 2:
            return score
        fitted = PLSRegression(n_components=count).fit(pooled[:, moving], targets)
        explained = (fitted.x_scores_**2).sum(axis=0) * (fitted.y_loadings_**2).sum(axis=0)
        weights = fitted.x_weights_ / np.linalg.norm(fitted.x_weights_, axis=0)
        score[moving] = np.sqrt(pooled.shape[1] * (weights**2 @ explained) / max(float(explained.sum()), 1e-30))
        return score
