"""Published networks, read from their own files, are as accurate as published."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rctk.checkpoint import load_model
from rctk.data import read_split
from rctk.train.normalised import Normalised

MODELS = Path(os.environ.get("RCTK_MODELS", ""))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("RCTK_DATA" not in os.environ, reason="RCTK_DATA names no folder of data sets"),
    pytest.mark.skipif("RCTK_MODELS" not in os.environ, reason="RCTK_MODELS names no folder of published networks"),
]


def published():
    """``benchmarks/architectures.py`` as a module; it is a script folder and no package."""
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "architectures.py"
    spec = importlib.util.spec_from_file_location("published_architectures", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.NETS


NETS = published()


@functools.cache
def images_of(name):
    split = read_split(name)
    # all of MNIST, since its published accuracies are of the whole set and its networks are small
    return split if name == "mnist:test" else split.take(np.arange(1000))


@pytest.mark.parametrize("name", NETS)
def test_a_published_network_is_as_accurate_as_published(name):
    net = NETS[name]
    loaded = load_model(MODELS / net.file, arch=net.arch, input=net.input)
    model = Normalised(loaded.module, loaded.input)
    with torch.no_grad():
        answers = [model(torch.from_numpy(x)).argmax(dim=1).numpy() == y for x, y in images_of(net.data).batches(250)]
    assert np.concatenate(answers).mean() == pytest.approx(net.clean_accuracy, abs=0.003)
