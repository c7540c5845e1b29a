from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    def make(*shape: int, seed: int = 0) -> np.ndarray:
        """Smooth random images with edges, on the 256 levels of stored pixels."""
        rng = np.random.default_rng(seed)
        height, width = shape[2:]
        rows, columns = np.mgrid[:height, :width] / max(height, width)
        waves = rng.uniform(1, 9, (*shape[:2], 2, 1, 1))
        smooth = np.sin(waves[:, :, 0] * rows + rng.uniform(0, 6, (*shape[:2], 1, 1))) * np.cos(
            waves[:, :, 1] * columns
        )
        images = 0.5 + 0.3 * smooth + 0.2 * np.sign(smooth) + rng.normal(0, 0.03, shape)
        return (np.rint(images.clip(0, 1) * 255) / 255).astype(np.float32)

    return make
