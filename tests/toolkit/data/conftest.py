"""Small data sets in every published format, written by the tests themselves."""

import numpy as np
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder that RCTK_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("RCTK_DATA", str(folder))
    return folder


@pytest.fixture
def pixels():
    """Ten 32 x 32 colour images, NHWC uint8, all different, and their labels 0..9."""
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    images[0, 0, 0] = [0, 128, 255]
    return images, np.arange(10)
