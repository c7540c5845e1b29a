from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rctk.checkpoint import save_checkpoint
from rctk.models import build_architecture
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec

DATA = Path(__file__).parents[2] / "device" / "data"
"""A trained 64-24-10 net for digits, exported for the cpu target, and 200 images."""


@pytest.fixture
def start(tmp_path):
    """Start a command as a process of its own, with a folder for temporary files that nobody else uses."""
    started = []
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def call(*arguments, before=""):
        text = f"{before}\nfrom rctk.cli.main import main\nmain()"
        command = [sys.executable, "-c", text, *map(str, arguments)]
        environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def bundle():
    return DATA / "bundle"


@pytest.fixture
def own_bundle(tmp_path, bundle):
    """A copy that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


@pytest.fixture(scope="session")
def digits():
    """Images and labels as a data set on disk."""
    return DATA / "digits.npz"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An rctk checkpoint of an untrained net."""
    spec = InputSpec(channels=1, height=8, width=8)
    module = build_architecture("digits-cnn", classes=10, input=spec)
    draw_weights(module, torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("models") / "digits.pt"
    save_checkpoint(path, module.eval(), arch="digits-cnn", input=spec, classes=tuple("0123456789"))
    return path


@pytest.fixture(scope="session")
def float_onnx(bundle):
    return bundle / "float.onnx"


@pytest.fixture
def npz(tmp_path):
    """Write a data set of noise with the given labels."""

    def write(labels, shape=(8, 8, 1), name="set.npz"):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        np.savez(tmp_path / name, images=images, labels=np.asarray(labels, dtype=np.int64))
        return tmp_path / name

    return write


@pytest.fixture
def changed(tmp_path, float_onnx):
    """Save the float graph after a change."""

    def save(change, name="changed.onnx"):
        model = onnx.load(float_onnx)
        change(model)
        (tmp_path / name).write_bytes(model.SerializeToString())
        return tmp_path / name

    return save
