"""NVML through a module that answers as nvidia-ml-py does."""

from __future__ import annotations

import sys
import types

import pytest

from rctk.measure.power_sensors import find_probes, nvml_probes
from rctk.measure.state import look


class NVMLError(Exception):
    pass


class Card:
    """A card that counts millijoules, or only knows its power in milliwatts."""

    def __init__(self, *, counts, millijoules=5000, milliwatts=70000):
        self.counts, self.millijoules, self.milliwatts, self.lost = counts, millijoules, milliwatts, False


@pytest.fixture
def nvml(monkeypatch):
    def install(cards, driver=True):
        module = types.ModuleType("pynvml")

        def start():
            if not driver:
                raise NVMLError("Driver Not Loaded")

        def energy(card):
            if card.lost:
                raise NVMLError("GPU is lost")
            if not card.counts:
                raise NVMLError("Not Supported")
            return card.millijoules

        vars(module).update(
            NVMLError=NVMLError,
            nvmlInit=start,
            nvmlDeviceGetCount=lambda: len(cards),
            nvmlDeviceGetHandleByIndex=cards.__getitem__,
            nvmlDeviceGetTotalEnergyConsumption=energy,
            nvmlDeviceGetPowerUsage=lambda card: card.milliwatts,
        )
        monkeypatch.setitem(sys.modules, "pynvml", module)

    return install


def test_a_counter_is_preferred_to_an_average_power(nvml):
    nvml([Card(counts=True), Card(counts=False)])
    (new, old), reason = nvml_probes()
    assert (new.kind, new.read(), old.kind, old.read()) == ("energy", 5.0, "power", 70.0)
    assert reason == ""


def test_no_driver_is_one_line(nvml, tmp_path):
    nvml([], driver=False)
    assert find_probes(tmp_path) == ([], ["nvml: Driver Not Loaded; see `nvidia-smi`"])


def test_a_card_that_is_lost_is_an_oserror_for_the_sampler(nvml):
    card = Card(counts=True)
    nvml([card])
    (probe,), _ = nvml_probes()
    card.lost = True
    with pytest.raises(OSError, match="GPU is lost"):
        probe.read()


def test_without_nvidia_ml_py_there_is_nothing_to_say(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_probes() == ([], "")


def test_on_a_jetson_the_card_is_shown_and_not_added(nvml, tmp_path):
    base = tmp_path / "sys/bus/i2c/devices/2-0044"
    (base / "hwmon/hwmon3").mkdir(parents=True)
    (base / "name").write_text("ina238\n")
    (base / "hwmon/hwmon3/power1_input").write_text("19780000\n")
    nvml([Card(counts=False)])
    found = find_probes(tmp_path)
    assert {probe.rail: probe.counts for probe in found.probes} == {"ina238 VIN": True, "nvml gpu0": False}


def test_a_desktop_card_gives_clock_and_heat_through_nvidia_smi(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H200, 570.10, 1980, 1980, 61, 318.4, 1024'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    state = look(tmp_path, tools=True)
    assert (state.gpu_mhz, state.hottest_celsius, state.hottest_zone) == (1980, 61, "NVIDIA H200")
    assert look(tmp_path).gpu_mhz is None
