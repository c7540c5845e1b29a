"""Run `rctk` as a device does: nothing but NumPy, cyclopts, rich and ONNX Runtime can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = (
    *("torch", "torchattacks", "onnx", "onnxscript", "scipy", "sklearn"),
    *("PIL", "matplotlib", "seaborn", "pandas", "safetensors", "tqdm"),
)
START = f"""
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in {BLOCKED!r} else find(name, *rest)
from rctk.cli.main import main
main()
"""


@pytest.fixture
def data():
    return Path(__file__).parent / "data"


@pytest.fixture
def rctk(tmp_path):
    """Run a command; return exit code, stdout and stderr."""

    def run(*arguments):
        command = [sys.executable, "-c", START, *(str(a) for a in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    return run
