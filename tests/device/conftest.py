"""Run `rctk` as a device does: from the wheel, where nothing but NumPy, small packages and ONNX Runtime is imported.

On a workstation, which is where torch is, a clean environment is made for the run with the wheel of this tree in it: of
Python 3.10, that of JetPack 6, where there is one (`RCTK_DEVICE_PYTHON` names it), else of the Python at hand.
`make device-tests` makes such an environment first and runs these tests inside.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = "ort,serve,remote"
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "RCTK_DATA", "RCTK_MODELS")
"""What a workstation may have set and a device has not."""
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


@pytest.fixture(scope="session")
def device_python(tmp_path_factory):
    """Path of a Python that has the wheel, ONNX Runtime, and what `serve` and the remote engine need; made once."""
    if importlib.util.find_spec("torch") is None:
        return sys.executable
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "device"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a run share one environment
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder / "venv" / "bin" / "python"


def make(folder):
    """Build the wheel of this tree and install it into a new environment, with the versions of a device."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    done(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("rctk-*.whl")
    done(python_of_a_device(), "-m", "venv", "--without-pip", folder / "venv")
    there = ("--python", folder / "venv" / "bin" / "python")
    constraints = ("--constraint", ROOT / "constraints-device.txt")
    done(*pip, *there, "install", "--no-compile", *constraints, f"{wheel}[{EXTRAS}]")


def python_of_a_device():
    """Return a Python 3.10 if one starts here, else the one that runs the tests."""
    given = os.environ.get("RCTK_DEVICE_PYTHON")
    if given:
        return given
    found = shutil.which("python3.10")  # may be a stand-in of pyenv that only explains itself
    works = found and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0
    return found if works else sys.executable


def done(*command):
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def data():
    return Path(__file__).parent / "data"


@pytest.fixture
def start(device_python, tmp_path):
    """Start a command in an empty folder; its process is ended with the test."""
    started = []

    def run(*arguments):
        command = [device_python, "-c", START, *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        process = subprocess.Popen(
            [str(part) for part in command],
            env={**environment, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def rctk(start):
    """Run a command; return exit code, stdout and stderr."""

    def run(*arguments):
        process = start(*arguments)
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    return run
