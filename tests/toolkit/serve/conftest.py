from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from rctk_export.bundle import read_bundle
from rctk_export.engines import ENGINES

DATA = Path(__file__).parents[2] / "device" / "data"


class Server(NamedTuple):
    """A server in a process of its own."""

    process: subprocess.Popen
    http: str
    grpc: str


def start_server(*arguments, token=""):
    """Start `rctk serve` for the digits bundle and wait until it listens."""
    command = [sys.executable, "-c", "from rctk.cli.main import main\nmain()", "serve", DATA / "bundle", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RCTK_TOKEN": token}
    process = subprocess.Popen(
        [str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            return Server(process, found.get("http", ""), found.get("grpc", ""))
        scheme, _, rest = line.removeprefix("serving ").strip().partition("://")
        found[scheme.rstrip("s") if scheme.endswith("s") else scheme] = f"{scheme}://{rest}"
    raise AssertionError(process.communicate()[1])


def end(server):
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="session")
def server():
    started = start_server("--port", 0, "--grpc-port", 0, "--max-batch", 64)
    yield started
    end(started)


@pytest.fixture(scope="session")
def source():
    return read_bundle(DATA / "bundle").source("int8", "cpu")


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).random((50, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="session")
def logits(source, images):
    """What the engine answers in this process."""
    with ENGINES.build("onnxruntime").open(source) as engine:
        return engine.predict(images)


@pytest.fixture(scope="session")
def known(source, images, logits):
    """The file, images, and what they give in this process."""
    return source, images, logits


@pytest.fixture
def start():
    """Start servers that end with the test."""
    started = []

    def call(*arguments, token=""):
        started.append(start_server(*arguments, token=token))
        return started[-1]

    yield call
    for each in started:
        end(each)
