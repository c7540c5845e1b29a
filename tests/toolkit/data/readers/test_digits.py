import numpy as np
import pytest
from sklearn.datasets import load_digits

from rctk.data import read_split
from rctk_kernels.errors import OptionError


def test_the_fixed_split_covers_the_set_once_with_balanced_classes():
    train, test = read_split("digits:train"), read_split("digits")
    assert (train.images.shape, test.images.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    both = np.concatenate([train.images, test.images])
    whole = (load_digits().images / 16).astype(np.float32)[:, None]
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in whole)
    share = np.bincount(load_digits().target) * 360 / 1797
    assert (np.abs(np.bincount(test.labels) - share) < 1).all()
    assert test.classes == tuple("0123456789")


def test_the_split_never_changes():
    # frozen: models in the wild were trained on these training images, so another split would leak test images
    assert read_split("digits:test").fingerprint.startswith("688115471b90")
    assert read_split("digits:train").fingerprint.startswith("522a3441ab7a")


def test_digits_need_no_data_folder(monkeypatch):
    monkeypatch.delenv("RCTK_DATA", raising=False)
    assert read_split("digits:test", samples=20).name == "digits:test"


def test_other_splits_are_refused_with_the_choices():
    with pytest.raises(OptionError, match=r"'val'.*test, train"):
        read_split("digits:val")
