"""The data sets that rctk knows by name, and the readers of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)

READERS: Mapping[str, str] = {
    "digits": "rctk.data.readers.digits:read",
    "npz": "rctk.data.readers.npz:read",
    "idx": "rctk.data.readers.idx:read",
    "cifar10": "rctk.data.readers.cifar:read_cifar10",
    "cifar100": "rctk.data.readers.cifar:read_cifar100",
    "svhn": "rctk.data.readers.svhn:read",
    "gtsrb": "rctk.data.readers.gtsrb:read",
    "folder": "rctk.data.readers.folder:read",
}
"""Reader to ``"module:function"``; imported only when a data set asks for it."""

ANY_FOLDER = ("npz", "idx", "cifar10", "cifar100", "svhn", "gtsrb", "folder")
"""Readers that are tried, in this order, on a folder given by path."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One row of the table.

    Attributes:
        what: One line for ``rctk list``.
        where: The files, below the folder of the data set in ``RCTK_DATA``; ``SPLIT`` stands for the split.
        readers: Names of readers, tried in order.
        count: Number of classes.
        classes: Their names, where the files do not hold them.
        splits: Of the official files; a ``.npz`` may hold any other.
    """

    what: str
    where: str
    readers: tuple[str, ...]
    count: int
    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "test")


DATASETS: Mapping[str, DataSet] = {
    "digits": DataSet(
        what="handwritten digits, 8x8 grey, 10 classes; 1,437 train, 360 test (split by rctk)",
        where="nothing: comes with scikit-learn",
        readers=("digits",),
        count=10,
        classes=_DIGITS,
    ),
    "mnist": DataSet(
        what="handwritten digits, 28x28 grey, 10 classes; 60,000 train, 10,000 test",
        where="mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz], or mnist/SPLIT.npz",
        readers=("npz", "idx"),
        count=10,
        classes=_DIGITS,
    ),
    "fashion-mnist": DataSet(
        what="clothes, 28x28 grey, 10 classes; 60,000 train, 10,000 test",
        where="fashion-mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz], or fashion-mnist/SPLIT.npz",
        readers=("npz", "idx"),
        count=10,
        classes=_FASHION,
    ),
    "cifar10": DataSet(
        what="photographs, 32x32 colour, 10 classes; 50,000 train, 10,000 test",
        where="cifar10/cifar-10-{python,binary}.tar.gz, or unpacked as cifar10/cifar-10-batches-{py,bin}/, "
        "or cifar10/SPLIT.npz",
        readers=("npz", "cifar10"),
        count=10,
        classes=_CIFAR10,
    ),
    "cifar100": DataSet(
        what="photographs, 32x32 colour, 100 classes; 50,000 train, 10,000 test",
        where="cifar100/cifar-100-{python,binary}.tar.gz, or unpacked as cifar100/cifar-100-{python,binary}/, "
        "or cifar100/SPLIT.npz",
        readers=("npz", "cifar100"),
        count=100,
    ),
    "svhn": DataSet(
        what="house numbers, 32x32 colour, 10 classes; 73,257 train, 26,032 test, 531,131 extra",
        where="svhn/{train,test,extra}_32x32.mat, or svhn/SPLIT.npz",
        readers=("npz", "svhn"),
        count=10,
        classes=_DIGITS,
        splits=("train", "test", "extra"),
    ),
    "gtsrb": DataSet(
        what="German traffic signs, resized to the model's input or 32x32, 43 classes; 39,209 train, 12,630 test",
        where="gtsrb/Final_Training/Images/00000/ to 00042/, gtsrb/Final_Test/Images/ with gtsrb/GT-final_test.csv, "
        "or gtsrb/SPLIT.npz",
        readers=("npz", "gtsrb"),
        count=43,
    ),
}
"""Known data sets; any other folder below ``RCTK_DATA`` is found by its name too."""
