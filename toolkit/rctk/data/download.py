"""Fetches the published files of a data set; only ever called because the user said so."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rctk_kernels.errors import DataError

TIMEOUT_S = 30
CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the files of a data set are published.

    Attributes:
        addresses: Folders on the network, tried in order.
        files: Split to file names and their published MD5 sums.
    """

    addresses: tuple[str, ...]
    files: Mapping[str, Mapping[str, str]]


_CIFAR = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
_CIFAR10 = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
_CIFAR100 = {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}

PUBLISHED: Mapping[str, Published] = {
    "mnist": Published(
        addresses=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files={
            "train": {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            },
            "test": {
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        },
    ),
    "fashion-mnist": Published(
        addresses=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files={
            "train": {
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            },
            "test": {
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        },
    ),
    "cifar10": Published(addresses=_CIFAR, files={"train": _CIFAR10, "test": _CIFAR10}),
    "cifar100": Published(addresses=_CIFAR, files={"train": _CIFAR100, "test": _CIFAR100}),
    "svhn": Published(
        addresses=("http://ufldl.stanford.edu/housenumbers/",),
        files={
            "train": {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373"},
            "test": {"test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"},
            "extra": {"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"},
        },
    ),
}
"""Data sets that may be fetched. MD5 is what their publishers state; it tells a cut file, not a hostile one."""


def can_download(name: str, split: str) -> bool:
    """Return whether the files of ``name:split`` have a published address."""
    return name in PUBLISHED and split in PUBLISHED[name].files


def download_split(name: str, split: str, folder: Path) -> None:
    """Fetch what ``name:split`` needs into ``folder``; files that are there already stay as they are."""
    if not can_download(name, split):
        raise DataError(f"{name}:{split} cannot be downloaded by rctk; put its files into {folder} by hand")
    published = PUBLISHED[name]
    for file, md5 in published.files[split].items():
        if not (folder / file).exists():
            download([address + file for address in published.addresses], md5, folder / file)


def download(urls: list[str], md5: str, target: Path) -> None:
    """Write the file at the first address that delivers it; ``target`` appears whole and checked, or not at all."""
    problems = []
    for url in urls:
        logging.getLogger(__name__).info("downloading %s", url)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            found = _fetch(url, md5, target)
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
            problems.append(f"{url}: {getattr(error, 'reason', '') or error or type(error).__name__}")
        except OSError as error:
            raise DataError(f"cannot write {target}: {error.strerror or error}") from error
        else:
            if found == md5:
                return
            problems.append(f"{url}: delivered a file with MD5 {found}, expected {md5}")
    raise DataError(f"cannot download {target.name} ({'; '.join(problems)}); put it into {target.parent} by hand")


def _fetch(url: str, md5: str, target: Path) -> str:
    """Stream ``url`` beside ``target``, rename it if its sum is ``md5``, and return the sum."""
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer,  # noqa: S310 - addresses are those of the table
        tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as part,
    ):
        path = Path(part.name)
        try:
            found = _copy(answer, part)
            part.close()
            if found == md5:
                path.chmod(0o644)
                path.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    return found


def _copy(answer: IO[bytes], part: IO[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := answer.read(CHUNK_BYTES):
        part.write(chunk)
        digest.update(chunk)
    return digest.hexdigest()
