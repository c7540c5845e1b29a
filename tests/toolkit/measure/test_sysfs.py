from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from rctk.measure.nvpmodel import PowerMode, parse_config, parse_query, parse_status, power_mode
from rctk.measure.power_sensors import find_probes, obstacle
from rctk.measure.sysfs import cpu_clocks, gpu_clocks, thermal_zones

spec = importlib.util.spec_from_file_location("measure_trees", Path(__file__).with_name("trees.py"))
assert spec is not None
assert spec.loader is not None
trees = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trees)

GPU = {"jetpack4": 76.8, "jetpack5": 306.0, "jetpack6": 1300.5, "jetpack7": 1575.0}
TOTAL = {"jetpack4": 2.532, "jetpack5": 4.936, "jetpack6": 1.9 + 0.95 + 2.0 + 0.19, "jetpack7": 19.78}


@pytest.mark.parametrize("name", trees.GENERATIONS)
def test_the_gpu_clock_of_every_generation(name, tmp_path):
    (clock,) = gpu_clocks(trees.write(tmp_path, trees.GENERATIONS[name])).values()
    assert clock.mhz == GPU[name]
    assert clock.pinned == (name == "jetpack6")  # jetson_clocks made both bounds the same


@pytest.mark.parametrize("name", trees.GENERATIONS)
def test_total_power_is_the_input_rail_or_else_the_sum(name, tmp_path):
    found = find_probes(trees.write(tmp_path, trees.GENERATIONS[name]), nvml=False)
    assert sum(probe.read() for probe in found.probes if probe.counts) == pytest.approx(TOTAL[name])
    assert found.obstacles == []
    assert not any("NC" in probe.rail or "shunt" in probe.rail for probe in found.probes)


def test_cores_are_in_the_order_of_their_numbers(tmp_path):
    clocks = cpu_clocks(trees.write(tmp_path, trees.ORIN_NX_JP5))
    assert [(name, clock.mhz) for name, clock in clocks.items()] == [("cpu0", 729.6), ("cpu4", 1190.4), ("cpu10", 1984)]
    assert clocks["cpu0"].governor == "schedutil"
    assert not clocks["cpu0"].pinned


def test_zones_that_are_off_are_left_out_and_equal_names_told_apart(tmp_path):
    assert thermal_zones(trees.write(tmp_path / "a", trees.ORIN_NX_JP5)) == {"CPU-therm": 48.0, "GPU-therm": 47.5}
    found = thermal_zones(trees.write(tmp_path / "b", trees.AGX_ORIN_JP6))
    assert found == {"cpu-thermal": 52.0, "gpu-thermal": 49.0, "tj-thermal": 52.0, "gpu-thermal#2": 50.0}


def test_a_machine_without_sysfs_has_no_clocks(tmp_path):
    assert (cpu_clocks(tmp_path), gpu_clocks(tmp_path), thermal_zones(tmp_path)) == ({}, {}, {})
    assert find_probes(tmp_path, nvml=False) == ([], [])
    assert power_mode(tmp_path) is None


def test_without_cpufreq_the_speed_is_what_cpuinfo_says(tmp_path):
    trees.write(tmp_path, {"proc/cpuinfo": "processor : 0\ncpu MHz\t\t: 2595.124\ncpu MHz : broken\ncpu MHz : 2000\n"})
    assert [clock.mhz for clock in cpu_clocks(tmp_path).values()] == [2595.124, 2000.0]


def test_broken_numbers_are_left_out(tmp_path):
    trees.write(tmp_path, trees.AGX_ORIN_JP6)
    trees.write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "garbage"})
    trees.write(tmp_path, {"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": ""})
    trees.write(tmp_path, {"sys/bus/i2c/devices/1-0040/hwmon/hwmon4/curr1_input": "-"})
    assert "cpu-thermal" not in thermal_zones(tmp_path)
    assert cpu_clocks(tmp_path) == {}
    found = find_probes(tmp_path, nvml=False)
    assert [probe.rail for probe in found.probes] == [
        "ina3221 VDD_CPU_CV",
        "ina3221 VIN_SYS_5V0",
        "ina3221 VDDQ_VDD2_1V8AO",
    ]
    assert found.obstacles == ["ina3221 VDD_GPU_SOC: curr1_input holds '-' and no number; see `rctk doctor`"]


def test_a_missing_current_is_a_missing_rail(tmp_path):
    trees.write(tmp_path, trees.ORIN_NX_JP5)
    (tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon3/curr1_input").unlink()
    found = find_probes(tmp_path, nvml=False)
    assert {probe.rail: probe.counts for probe in found.probes} == {
        "ina3221 VDD_CPU_GPU_CV": True,
        "ina3221 VDD_SOC": True,
    }


def test_rapl_counts_packages_and_their_memory_only(tmp_path):
    found = find_probes(trees.write(tmp_path, trees.XEON), nvml=False)
    assert {probe.rail: (probe.read(), probe.counts) for probe in found.probes} == {
        "rapl package-0": (5.0, True),
        "rapl core-0": (3.0, False),
        "rapl dram-0": (1.0, True),
        "rapl package-1": (4.0, True),
        "rapl dram-1": (1.0, True),
        "rapl psys": (40.0, False),
    }
    assert found.probes[0].wraps_at_j == pytest.approx(262143.32885)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_only_is_one_line(tmp_path):
    trees.write(tmp_path, trees.XEON)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    found = find_probes(tmp_path, nvml=False)
    assert len(found.obstacles) == 1
    assert "rapl package-0: Permission denied; run as root, or `sudo chmod" in found.obstacles[0]


def test_the_words_of_a_refusal():
    text = obstacle("ina3221 VDD_IN", PermissionError(13, "Permission denied"))
    assert text == "ina3221 VDD_IN: Permission denied; run as root"
    assert obstacle("nvml gpu0", OSError("GPU is lost")) == "nvml gpu0: GPU is lost; see `rctk doctor`"


CONF = (
    "< PM_CONFIG DEFAULT=2 >\n< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_30W >\n"
)


def test_the_power_mode_needs_no_root(tmp_path):
    trees.write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002 fmode:quiet"})
    assert power_mode(tmp_path) == PowerMode(2)
    assert str(power_mode(tmp_path)) == "mode (2)"
    trees.write(tmp_path, {"etc/nvpmodel.conf": CONF})
    assert power_mode(tmp_path) == PowerMode(2, "MODE_30W")
    assert parse_config("# < POWER_MODEL ID=7 NAME=OFF >\n< POWER_MODEL ID=x NAME=Y >") == {}


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", PowerMode(0, "MAXN")),
        ("NV Fan Mode:quiet\nNV Power Mode: 10W\n1\n", PowerMode(1, "10W")),
        ("NV Power Mode: MODE_30W\n2", PowerMode(2, "MODE_30W")),
        ("NV Power Mode: 120W\n1\n", PowerMode(1, "120W")),
        ("NV Power Mode: MAXN\n", None),
        ("command failed", None),
        ("", None),
    ],
)
def test_what_nvpmodel_prints(text, mode):
    assert parse_query(text) == mode


@pytest.mark.parametrize("text", ["", "pmode:", "fmode:cool", "pmode:x"])
def test_a_broken_state_file_has_no_mode(text):
    assert parse_status(text) is None


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_files_that_refuse_are_left_out_or_named(tmp_path, monkeypatch, error):
    """As root sees it too: every value file of every reader refuses."""
    root = trees.write(tmp_path, {**trees.XEON, **trees.AGX_ORIN_JP6, "var/lib/nvpmodel/status": "pmode:0000"})
    whole, names = Path.read_text, ("energy_uj", "_input", "temp", "cur_freq", "status", "cpuinfo")

    def refuse(path, *args, **kwargs):
        if path.name.endswith(names):
            raise error
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    found = find_probes(root, nvml=False)
    assert found.probes == []
    assert len(found.obstacles) == 6 + 4  # six RAPL zones, four rails that are connected
    assert all("\n" not in text and error.strerror in text for text in found.obstacles)
    assert (cpu_clocks(root), gpu_clocks(root), thermal_zones(root), power_mode(root)) == ({}, {}, {}, None)
