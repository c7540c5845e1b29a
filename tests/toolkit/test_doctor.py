from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rctk import doctor
from rctk.machine import machine_facts
from rctk_export.engines import ENGINES

GIB = 2**30


def facts(**changes):
    return {**machine_facts(), **changes}


def test_every_check_says_what_was_found_and_every_fault_a_next_step(tmp_path):
    found = doctor.checks({}, tmp_path)
    assert len({check.name for check in found}) == len(found)
    assert all(check.found for check in found)
    assert all(bool(check.step) == (check.state != "ok") for check in found)
    assert all("\n" not in check.found + check.step for check in found)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, json; from rctk.doctor import checks; checks()\n"
        "print(json.dumps([m for m in ('torch', 'onnx', 'onnxruntime', 'sklearn', 'scipy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_engine_is_looked_at():
    assert set(doctor.RUNTIMES) >= set(ENGINES.names())


def test_an_engine_without_its_runtime_names_the_install_line(monkeypatch):
    monkeypatch.setitem(doctor.RUNTIMES, "onnxruntime", ("no_such_runtime",))
    check = doctor.engine("onnxruntime")
    assert (check.state, check.found) == ("missing", "no no_such_runtime")
    assert check.step == "`pip install 'rctk[ort]'`"


def test_a_runtime_that_spoils_int8_on_this_processor_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "spoils_int8", lambda _: True)
    check = doctor.engine("onnxruntime")
    assert (check.state, "onnxruntime>=1.25" in check.step) == ("warning", True)
    monkeypatch.setattr(doctor, "spoils_int8", lambda _: False)
    assert doctor.engine("onnxruntime").state == "ok"


def test_an_installed_package_has_its_version():
    import numpy as np

    check = doctor.package("numpy")
    assert (check.state, check.found) == ("ok", f"numpy {np.__version__}")


def test_python_3_10_runs_bundles_only():
    assert doctor.python((3, 11)).state == "ok"
    assert doctor.python((3, 10)).state == "warning"


@pytest.mark.parametrize(
    ("load", "environ", "state", "words"),
    [
        (0.1, {}, "ok", ""),
        (0.1, {"OMP_NUM_THREADS": "2"}, "ok", ""),
        (3.0, {}, "warning", "use 1 thread,"),
        (3.0, {"OMP_NUM_THREADS": "2"}, "warning", "OMP_NUM_THREADS=1 or OMP_WAIT_POLICY=PASSIVE"),
        (3.0, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}, "warning", "use 1 thread,"),
        (0.1, {"OMP_NUM_THREADS": "64"}, "warning", "OMP_NUM_THREADS=2"),
    ],
)
def test_threads_that_would_spin_are_a_warning(load, environ, state, words):
    check = doctor.threads(load, 2, environ)
    assert check.state == state
    assert words in check.step


def test_less_than_a_core_is_a_warning():
    assert doctor.cores(facts(cores_quota=0.5), 1).state == "warning"
    assert "control group allows 1.5; 1 usable" in doctor.cores(facts(cores_quota=1.5), 1).found
    assert doctor.cores(facts(cores_quota=None), 2).state == "ok"


def test_memory_is_what_the_control_group_leaves():
    plenty = {"memory_bytes": 64 * GIB, "memory_available_bytes": 32 * GIB}
    assert doctor.memory(facts(**plenty, memory_limit_bytes=None)).found == "32.0 GiB usable of 64.0 GiB"
    assert doctor.memory(facts(**plenty, memory_limit_bytes=GIB)).state == "warning"
    unknown = {"memory_bytes": None, "memory_available_bytes": None, "memory_limit_bytes": None}
    assert doctor.memory(facts(**unknown)).state == "warning"


def test_the_disk_of_a_folder_that_does_not_exist_yet(tmp_path):
    assert doctor.disk(tmp_path / "a" / "runs").state == "ok"
    (tmp_path / "file").write_text("x")
    assert doctor.disk(tmp_path / "file" / "runs").state == "missing"


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_DISK_BYTES", 2**60)
    assert doctor.disk(tmp_path).state == "warning"


def test_int8_instructions():
    assert doctor.int8(["avx2", "avx_vnni"], saturates=False).found == "avx_vnni"
    assert "saturate" in doctor.int8(["avx2"], saturates=True).step
    assert doctor.int8([], saturates=False).state == "warning"


def test_data_sets_are_found_by_their_folder(tmp_path):
    assert doctor.data("").state == "warning"
    assert doctor.data(str(tmp_path / "nowhere")).state == "missing"
    assert doctor.data(str(tmp_path)).state == "warning"
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "holiday").mkdir()
    assert doctor.data(str(tmp_path)).found == f"{tmp_path}: cifar10"


def test_gpus_are_named_and_not_needed():
    assert doctor.gpu(["NVIDIA H200"]).found == "NVIDIA H200"
    assert doctor.gpu([]).state == "ok"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package onnxruntime of our own; return its folder of libraries."""
    libraries = tmp_path / "onnxruntime" / "capi"
    libraries.mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(doctor, "installed", lambda names: "1.31.1" if "onnxruntime-gpu" in names else "")
    return libraries


@pytest.mark.parametrize(("provider", "extra"), [("cuda", "ort-gpu"), ("tensorrt", "ort-tensorrt")])
def test_a_wheel_without_nvidias_providers_names_the_one_that_has_them(wheel, provider, extra):
    check = doctor.engine(f"onnxruntime-{provider}")
    assert check.state == "missing"
    assert check.found == "onnxruntime 1.31.1, a wheel without that provider"
    assert f"rctk[{extra}]" in check.step
    (wheel / f"libonnxruntime_providers_{provider}.so").touch()
    assert doctor.engine(f"onnxruntime-{provider}").state == "ok"


def test_two_wheels_in_one_folder_are_a_warning(wheel, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda names: "1.31.1")
    check = doctor.engine("onnxruntime")
    assert (check.state, check.found) == ("warning", "onnxruntime and onnxruntime-gpu")
    assert "uninstall both" in check.step
