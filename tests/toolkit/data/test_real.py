"""The real sets, where they are: counts and facts that are published about them."""

import os
from pathlib import Path

import numpy as np
import pytest

from rctk.data import read_split
from rctk_export.input_spec import InputSpec

pytestmark = pytest.mark.data
ROOT = Path(os.environ.get("RCTK_DATA", "no-such-folder"))


def needs(*names):
    missing = [name for name in names if not (ROOT / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} below RCTK_DATA")


@needs("mnist/t10k-images-idx3-ubyte.gz", "mnist/train-images-idx3-ubyte.gz")
def test_mnist_has_its_published_class_counts():
    test, train = read_split("mnist:test"), read_split("mnist:train", samples=6000, seed=1)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    share = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 10
    assert (np.abs(np.bincount(train.labels) - share) < 1).all()


@needs("mnist/train-images-idx3-ubyte.gz")
def test_mnist_has_its_known_mean():
    train = read_split("mnist:train")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert float(train.images.mean(dtype=np.float64)) == pytest.approx(0.1307, abs=5e-5)


@needs("cifar10/test.npz", "cifar10/train.npz")
def test_cifar10_begins_with_its_known_images():
    test, train = read_split("cifar10:test"), read_split("cifar10:train")
    assert train.images.shape[1:] == test.images.shape[1:] == (3, 32, 32)
    assert [test.classes[label] for label in test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    assert [train.classes[label] for label in train.labels[:3]] == ["frog", "truck", "truck"]
    np.testing.assert_allclose(train.images.mean(axis=(0, 2, 3), dtype=np.float64), [0.4914, 0.4822, 0.4465], atol=2e-3)
    drawn = read_split("cifar10:train", samples=512, seed=3)
    assert drawn.fingerprint == train.sample(512, seed=3).fingerprint
    assert set(np.bincount(drawn.labels).tolist()) <= {50, 51, 52, 53}


@needs("gtsrb/test.npz")
def test_gtsrb_begins_with_its_known_labels():
    test = read_split("gtsrb:test", input=InputSpec(channels=3, height=32, width=32))
    assert test.labels[:6].tolist() == [16, 1, 38, 33, 11, 38]
    assert test.labels.max() == 42


@needs("imagenet_sample")
def test_an_image_folder_is_cropped_to_the_model():
    split = read_split("imagenet_sample", samples=3, input=InputSpec(channels=3, height=64, width=48))
    assert split.images.shape == (3, 3, 64, 48)
    assert split.images.std() > 0.1
