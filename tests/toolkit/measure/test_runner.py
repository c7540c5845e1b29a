"""Scenarios, warm-up, pauses and what the machine did meanwhile."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rctk.measure.bench import Contender, bench
from rctk.measure.cold_start import cold_starts, cold_values
from rctk.measure.runner import Clocks, Runner
from rctk.measure.settings import OFFLINE_BATCHES, BenchSettings
from rctk.measure.state import State, look, moved
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

spec = importlib.util.spec_from_file_location("measure_trees", Path(__file__).with_name("trees.py"))
assert spec is not None
assert spec.loader is not None
trees = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trees)
BATCHES = [np.zeros((2, 1, 2, 2), dtype=np.float32)]


class World:
    """A clock that engines move: each call takes the next of ``costs_ms``, the last of them for ever."""

    def __init__(self, *costs_ms):
        self.now, self.costs, self.waits = 0, list(costs_ms), []
        self.clocks = Clocks(lambda: self.now, lambda: self.now, self.wait)

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += int(seconds * 1e9)

    def predict(self, images):
        self.now += int((self.costs.pop(0) if len(self.costs) > 1 else self.costs[0]) * 1e6)
        return np.zeros((len(images), 3), dtype=np.float32)


def runner(world, **changes):
    settings = BenchSettings(**{"batch": 2, "warmup": 3, "seconds": 0.0, "calls": 5, **changes})
    return Runner([world] * settings.streams, BATCHES, settings, world.clocks)


def test_warm_up_waits_until_the_median_stands_still():
    world = World(*[100.0 / (1 + i) for i in range(60)], 1.5)  # an engine that gets faster and faster
    warm = runner(world, settle_seconds=100.0)
    warm.warm_up()
    assert warm.steady
    assert 60 < warm.warm_up_calls < 100
    warm.measure(5)
    assert warm.turns[0].tolist() == [1.5e6] * 5


def test_an_engine_that_never_settles_is_timed_all_the_same_and_said_to_be_unsteady():
    world = World(*[1.5**i for i in range(40)])
    warm = runner(world, settle_seconds=0.5)
    warm.warm_up()
    assert not warm.steady
    assert 0.5 <= world.now / 1e9 < 2


def test_pauses_come_after_every_call_and_are_not_in_its_time():
    world = World(2.0)
    paused = runner(world, gap_ms=33.0, settle_seconds=0.0)
    paused.warm_up()
    paused.measure(5)
    assert paused.turns[0].tolist() == [2e6] * 5
    assert set(world.waits) == {0.033}
    assert len(world.waits) == (paused.warm_up_calls - 1) + 5


class Meeting:
    """An engine that answers only when ``parties`` are asked at the same time."""

    def __init__(self, parties):
        self.barrier = threading.Barrier(parties, timeout=5)

    def predict(self, images):
        self.barrier.wait()
        return np.zeros((len(images), 3), dtype=np.float32)


def test_streams_run_at_the_same_time():
    world, meeting = World(1.0), Meeting(3)
    settings = BenchSettings(batch=2, scenario="multi-stream", streams=3, warmup=0, seconds=0, settle_seconds=0)
    with Runner([meeting] * 3, BATCHES, settings, world.clocks) as streams:
        streams.measure(4)
    assert streams.images() == 4 * 3 * 2


def test_an_offline_query_holds_many_batches_and_each_is_answered_once():
    seen = []

    class Listed:
        def predict(self, images):
            seen.append(threading.get_ident())
            return np.zeros((len(images), 3), dtype=np.float32)

    settings = BenchSettings(batch=2, scenario="offline", streams=2, warmup=0, seconds=0, settle_seconds=0)
    with Runner([Listed(), Listed()], BATCHES, settings, World(1.0).clocks) as offline:
        offline.measure(1)
    assert len(seen) == 2 * OFFLINE_BATCHES  # one query to warm the caches, one that counts
    assert offline.images() == OFFLINE_BATCHES * 2


def test_an_error_in_a_stream_is_an_error_of_the_run():
    class Broken:
        def predict(self, images):
            raise EngineError("out of memory")

    settings = BenchSettings(scenario="multi-stream", streams=2)
    with Runner([Broken(), Broken()], BATCHES, settings, World(1.0).clocks) as streams, pytest.raises(EngineError):
        streams.measure(1)


def test_an_engine_that_times_its_device_is_asked():
    class Timed(World):
        on = False

        def time_device(self):
            self.on = True

        def device_ms(self):
            return 0.25

    world = Timed(1.0)
    timed = runner(world, settle_seconds=0.0)
    timed.warm_up()
    timed.measure(5)
    assert world.on
    assert timed.values()["device_median_ms"] == 0.25
    assert timed.values()["median_ms"] == 1.0
    plain = runner(World(1.0), settle_seconds=0.0)
    plain.warm_up()
    plain.measure(2)
    assert "device_median_ms" not in plain.values()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "server"}, "single-stream, multi-stream, offline"),
        ({"streams": 2}, "--scenario multi-stream"),
        ({"scenario": "multi-stream"}, "--streams 2"),
        ({"gap_ms": -1}, "gap_ms must be 0 or more"),
        ({"gap_ms": float("nan")}, "gap_ms must be 0 or more"),
        ({"energy": True, "idle_seconds": 0}, "idle_seconds"),
        ({"cold_starts": -1}, "cold_starts"),
        ({"streams": 0}, "streams must be 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(OptionError, match=words):
        BenchSettings(**changes)


COOL = State(2000.0, 1300.0, 50.0, "cpu", "MAXN (0)", ("performance",), pinned=True)


def test_nothing_moved():
    assert moved(COOL, [COOL, COOL._replace(cpu_mhz=1950.0)], COOL._replace(hottest_celsius=59.0)) == []
    assert moved(COOL._replace(cpu_mhz=800.0), [COOL, COOL], COOL) == []  # it was idle before


def test_what_moved_is_named():
    during = [COOL, COOL._replace(gpu_mhz=1000.0)]
    hot = COOL._replace(hottest_celsius=83.5, hottest_zone="gpu-thermal", power_mode="MODE_30W (2)")
    assert moved(COOL, during, hot) == [
        "GPU clock 1000 to 1300 MHz",
        "power mode MAXN (0) then MODE_30W (2)",
        "gpu-thermal from 50 to 84 °C",
    ]


def test_a_look_at_every_generation(tmp_path):
    for name, tree in trees.GENERATIONS.items():
        state = look(trees.write(tmp_path / name, tree))
        assert state.cpu_mhz > 500
        assert state.gpu_mhz > 50
        assert 30 < state.hottest_celsius < 60
        assert state.pinned == (name == "jetpack6")
    assert look(tmp_path / "nothing") == State(None, None, None, "", "", (), None)


@dataclass(frozen=True)
class Stepping:
    """A clock that goes back once, far into the run."""

    def __call__(self):
        Stepping.reads += 1
        return Stepping.reads * 1000 - (10**9 if Stepping.reads > 200 else 0)


def test_a_clock_that_steps_back_in_a_bench_is_one_line(linear):
    Stepping.reads = 0
    clocks = Clocks(Stepping(), Stepping(), lambda _: None)
    settings = BenchSettings(warmup=2, seconds=0, settle_seconds=0, memory=False)
    with pytest.raises(EngineError, match="the clock stepped back by"):
        bench([Contender(engine="onnxruntime", source=linear())], None, settings, clocks)


ENERGY = {"calls": 5, "rounds": 2, "seconds": 0.0, "settle_seconds": 0.0, "memory": False, "energy": True}


def test_energy_from_sysfs_over_the_window_of_the_latency(linear, tmp_path):
    root = trees.write(tmp_path / "root", trees.ORIN_NX_JP5)
    settings = BenchSettings(**ENERGY, energy_seconds=0.4, idle_seconds=0.2)
    (values,) = bench([Contender(engine="onnxruntime", source=linear())], None, settings, root=root)
    assert values["mean_w"] == pytest.approx(4.936)
    assert values["idle_w"] == pytest.approx(4.936)
    assert values["image_j"] == pytest.approx(0, abs=1e-6)
    assert 0.4 <= values["energy_window_s"] < 2
    assert values["energy_total_of"] == ["ina3221 VDD_IN"]
    assert values["calls"] > 5
    assert "at least 10 s" in values["energy_note"]


def test_a_sensor_that_vanishes_in_a_bench_leaves_the_latency(linear, tmp_path, monkeypatch):
    root = trees.write(tmp_path / "root", trees.ORIN_NX_JP5)
    rail = root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon3/in1_input"
    settings = BenchSettings(**ENERGY, energy_seconds=0.3, idle_seconds=0.1)
    monkeypatch.setattr("rctk.measure.runner.Runner.warm_up", lambda self: rail.unlink())
    (values,) = bench([Contender(engine="onnxruntime", source=linear())], None, settings, root=root)
    assert values["median_ms"] > 0
    assert values["mean_w"] is None
    assert values["energy_note"] == "ina3221 VDD_IN vanished in mid-run: No such file or directory"


def test_no_sensor_is_refused_before_the_work_begins(tmp_path, monkeypatch, linear):
    monkeypatch.setattr("rctk.measure.power_sensors.nvml_probes", lambda: ([], "nvml: Driver Not Loaded"))
    with pytest.raises(EngineUnavailableError, match=r"no power sensor can be read \(nvml: Driver Not Loaded\)"):
        bench([Contender(engine="onnxruntime", source=linear())], None, BenchSettings(energy=True), root=tmp_path)


def test_cold_starts_are_new_processes(linear):
    starts = cold_starts("onnxruntime", linear(), batch=2, processes=2)
    assert all(min(start) > 0 for start in starts)
    assert all(start.import_ms > start.later_ms for start in starts)  # importing takes a tenth of a second
    values = cold_values(starts)
    assert values["cold_totals_ms"] == [start.total_ms for start in starts]


def test_a_cold_start_that_fails_is_one_line(linear):
    source = linear()
    source.path.write_bytes(b"not onnx")
    with pytest.raises(EngineError, match=r"^measuring the cold start of onnxruntime failed: .*cannot load"):
        cold_starts("onnxruntime", source, batch=1, processes=1)
