"""Honest nets and planted cases of gradient masking as fixtures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from rctk.audit import Examined
from rctk.data import read_split
from rctk.threat import ThreatModel

EPS = 0.1


@pytest.fixture(scope="session")
def planted():
    """The file of builders beside this one, as a module."""
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plain(planted):
    return planted.plain()


@pytest.fixture(scope="session")
def robust(planted):
    return planted.robust()


@pytest.fixture(scope="session")
def split():
    return read_split("digits:test", samples=150)


@pytest.fixture
def examine(split):
    """Make the subject of an audit from a module."""

    def make(module, *, eps=EPS, parent=None, model=None):
        def predict(images):
            with torch.no_grad():
                return module(torch.from_numpy(images)).numpy()

        threat = ThreatModel(eps=eps)
        return Examined(
            name="engine" if parent else "float",
            predict=predict,
            model=module if model is None else model,
            split=split,
            threat=threat,
            parent=parent,
        )

    return make
