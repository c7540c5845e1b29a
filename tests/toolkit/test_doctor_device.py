from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from rctk import doctor_device as device
from rctk.machine import machine_facts

spec = importlib.util.spec_from_file_location("measure_trees", Path(__file__).parent / "measure" / "trees.py")
assert spec is not None
assert spec.loader is not None
trees = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trees)


def facts(**changes):
    return {**machine_facts(), **changes}


ORIN = facts(board="NVIDIA Jetson AGX Orin Developer Kit", l4t="36.4.3")


def test_other_machines_have_no_jetson_lines():
    assert device.jetson(facts(board="", l4t="")) == []
    assert device.jetson(facts(board="Raspberry Pi 5 Model B", l4t="")) == []


def test_a_jetson_tells_jetpack_power_mode_and_tensorrt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = {check.name: check for check in device.jetson(ORIN, tmp_path)}
    assert lines["jetpack"].found == "NVIDIA Jetson AGX Orin Developer Kit, JetPack 6.2 (Jetson Linux 36.4.3)"
    assert (lines["jetpack"].state, lines["power mode"].state, lines["tegrastats"].state) == (
        "ok",
        "warning",
        "missing",
    )
    for name in ("nvpmodel", "tegrastats"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
        (tmp_path / name).chmod(0o755)
    lines = {check.name: check for check in device.jetson(ORIN, tmp_path)}
    assert lines["power mode"].found == "MAXN (0)"
    assert lines["tegrastats"].found == str(tmp_path / "tegrastats")
    assert lines["tegrastats"].state == "ok"


def test_the_power_mode_is_read_from_files_first(tmp_path):
    trees.write(
        tmp_path, {"var/lib/nvpmodel/status": "pmode:0002", "etc/nvpmodel.conf": "< POWER_MODEL ID=2 NAME=30W >"}
    )
    assert device.mode(tmp_path).found == "30W (2)"


@pytest.mark.parametrize(
    ("l4t", "words", "state"),
    [
        ("32.7.4", "JetPack 4.x", "warning"),
        ("35.4.1", "JetPack 5.x", "warning"),
        ("36.5.0", "JetPack 6.2.2", "ok"),
        ("36.9.9", "JetPack 6.x", "ok"),
        ("38.2.1", "JetPack 7.0", "ok"),
        ("38.4.0", "JetPack 7.1", "ok"),
        ("39.2.2", "JetPack 7.2.2", "ok"),
        ("99.1.0", "JetPack unknown", "warning"),
        ("", "Jetson Linux unknown", "warning"),
    ],
)
def test_jetpack_by_jetson_linux(l4t, words, state):
    check = device.jetpack({**ORIN, "l4t": l4t})
    assert words in check.found
    assert check.state == state


def test_tensorrt_11_is_not_for_jetpack_6(monkeypatch):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(device, "installed", lambda names: "11.4.0.106")
    assert "TensorRT 10.3" in device.tensorrt("36.4.3").step
    assert device.tensorrt("39.2.2").state == "ok"
    monkeypatch.setattr(device, "installed", lambda names: "10.3.0")
    assert device.tensorrt("36.4.3").state == "ok"


def test_the_tensorrt_of_jetpack_6_0_is_too_old(monkeypatch):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())
    steps = {}
    for version in ("8.6.2.3", "10.0.1", "10.2", "10.3", "10.16.2.10"):
        monkeypatch.setattr(device, "installed", lambda names, version=version: version)
        steps[version] = device.tensorrt("36.3.0").step
    assert [version for version, step in steps.items() if "JetPack 6.1 or newer" in step] == [
        "8.6.2.3",
        "10.0.1",
        "10.2",
    ]


def test_clocks_of_a_jetson_that_are_not_pinned_name_jetson_clocks(tmp_path):
    loose = device.clocks(trees.write(tmp_path / "a", trees.ORIN_NX_JP5), jetson=True)
    assert "jetson_clocks" in loose.step
    assert "4 of 4 may move" in loose.found
    pinned = device.clocks(trees.write(tmp_path / "b", trees.AGX_ORIN_JP6), jetson=True)
    assert (pinned.state, pinned.step) == ("ok", "")
    assert "all pinned" in pinned.found


def test_clocks_of_a_workstation(tmp_path):
    base = "sys/devices/system/cpu/cpufreq/policy0"
    assert device.clocks(tmp_path / "none").state == "ok"
    assert device.clocks(trees.write(tmp_path / "a", trees.XEON)).state == "ok"  # performance
    slow = trees.write(
        tmp_path / "b", {**trees.policy(0, 1, 1, 9, "powersave"), f"{base}/scaling_driver": "acpi-cpufreq"}
    )
    assert "cpupower" in device.clocks(slow).step
    trees.write(slow, {f"{base}/scaling_driver": "intel_pstate"})
    assert device.clocks(slow).state == "ok"


def test_heat(tmp_path):
    assert device.heat(tmp_path).found == "not visible here"
    assert device.heat(trees.write(tmp_path / "a", trees.zones(("gpu", 84000)))).state == "ok"
    assert device.heat(trees.write(tmp_path / "b", trees.zones(("gpu", 91000), ("cpu", 50000)))).found == "91 °C at gpu"
    assert device.heat(tmp_path / "b").state == "warning"


def test_power_sensors(tmp_path, monkeypatch):
    monkeypatch.setattr("rctk.measure.power_sensors.nvml_probes", lambda: ([], ""))
    assert device.power_sensors(tmp_path / "none").state == "ok"
    assert device.power_sensors(trees.write(tmp_path / "a", trees.THOR_JP7)).found == "ina238 VIN"
    found = device.power_sensors(trees.write(tmp_path / "b", trees.XEON)).found
    assert found == "rapl package-0, rapl dram-0, rapl package-1, rapl dram-1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_rapl_for_root_only_says_what_to_do(tmp_path):
    (trees.write(tmp_path, trees.XEON) / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    assert "sudo chmod" in device.power_sensors(tmp_path).step


def test_a_sensor_that_may_not_be_read_is_a_warning(tmp_path, monkeypatch):
    texts = ["rapl package-0: Permission denied; run as root", "rapl dram-0: Permission denied; run as root"]
    monkeypatch.setattr(device, "find_probes", lambda root: ([], texts))
    check = device.power_sensors(tmp_path)
    assert check.found == "none; not rapl package-0: Permission denied and 1 more"
    assert (check.state, check.step) == ("warning", "run as root")


def test_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "gpus", list)
    assert device.cuda(tmp_path).found == "none (not needed)"
    trees.write(tmp_path, {"usr/local/cuda/version.json": '{"cuda": {"version": "12.6.11"}}'})
    assert device.cuda(tmp_path).found == "toolkit 12.6.11"
    assert device.parse_cuda("[]") == device.parse_cuda('{"cuda": 3}') == ""
