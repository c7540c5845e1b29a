from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from rctk.cli.bench_tables import shared_text
from rctk.measure.bench import Contender, bench, busy, with_threads
from rctk.measure.fastest import candidates, fastest
from rctk.measure.runner import Clocks
from rctk.measure.settings import BenchSettings
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError, EngineError, EngineUnavailableError, OptionError

KEYS = {
    *("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms", "calls", "times_ms"),
    *("p90_bound_ms", "p99_bound_ms", "variation", "warm_up_calls", "steady"),
    *("images_per_s", "file_bytes", "peak_rss_bytes", "engine_rss_bytes", "speedup", "cpu_speedup"),
    *("device_bytes", "device_source", "planned_bytes", "system_bytes", "speedup_low", "speedup_high"),
    *("state_before", "state_during", "state_after", "load_after", "moved"),
}


class World:
    """A clock that only engines move, and a log of what they did."""

    wall = 0
    cpu = 0
    log: ClassVar[list[str]] = []
    seen: ClassVar[list[np.ndarray]] = []


@dataclass(frozen=True, kw_only=True)
class Fake:
    """An engine that needs ``ms`` per call; from call number ``slow`` on, others hold the CPU for 100 ms more."""

    ms: float = 1.0
    slow: int = 10**9

    def open(self, source):
        World.log.append(f"open {self.ms:g}")
        return FakeEngine(self)


class FakeEngine:
    def __init__(self, settings):
        self.settings, self.calls = settings, 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        World.log.append(f"close {self.settings.ms:g}")

    def predict(self, images):
        self.calls += 1
        World.log.append(f"{self.settings.ms:g}")
        World.seen.append(images)
        World.cpu += int(self.settings.ms * 1e6)
        World.wall += int(self.settings.ms * 1e6) + (100_000_000 if self.calls >= self.settings.slow else 0)
        return np.zeros((len(images), 3), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Absent:
    def open(self, source):
        raise EngineUnavailableError("pip install it")


@dataclass(frozen=True, kw_only=True)
class Wrong:
    def open(self, source):
        engine = FakeEngine(Fake())
        engine.predict = lambda images: np.zeros(3, dtype=np.float32)
        return engine


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    module = types.ModuleType("fake_engines")
    vars(module).update(Fake=Fake, Absent=Absent, Wrong=Wrong)
    monkeypatch.setitem(sys.modules, "fake_engines", module)
    for name in ("Fake", "Absent", "Wrong"):
        monkeypatch.setitem(ENGINES._table, name.lower(), f"fake_engines:{name}")
    World.wall = World.cpu = 0
    World.log.clear()
    World.seen.clear()


def wait(seconds):
    World.wall += int(seconds * 1e9)
    World.log.append(f"wait {seconds:g}")


CLOCKS = Clocks(wall_ns=lambda: World.wall, cpu_ns=lambda: World.cpu, sleep=wait)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"0123456789")
    return Source(path=tmp_path / "m.onnx", input=InputSpec(channels=1, height=2, width=2))


def quick(**changes):
    return BenchSettings(
        **{"warmup": 1, "seconds": 0, "settle_seconds": 0, "calls": 4, "rounds": 2, "memory": False, **changes}
    )


def test_engines_take_turns_and_the_first_call_of_a_turn_does_not_count(source):
    pair = [Contender(engine=f"fake:ms={ms}", source=source) for ms in (4, 1)]
    results = bench(pair, None, quick(), CLOCKS)
    turn = ["4", "4", "4", "1", "1", "1"]  # one to warm the caches and two that count
    assert World.log == ["open 4", "open 1", "4", "1", *turn, *turn, "close 1", "close 4"]
    assert [result["times_ms"] for result in results] == [[4.0] * 4, [1.0] * 4]


def test_values_of_a_known_pair(source):
    float_, int8 = bench(
        [Contender(engine="fake:ms=4", source=source), Contender(engine="fake:ms=0.5", source=source)],
        None,
        quick(batch=3),
        CLOCKS,
    )
    assert set(int8) == KEYS
    assert (float_["speedup"], float_["cpu_speedup"]) == (1.0, 1.0)
    assert (int8["speedup"], int8["cpu_speedup"], int8["median_ms"]) == (8.0, 8.0, 0.5)
    assert int8["images_per_s"] == 6000.0  # 3 images in half a millisecond
    assert int8["file_bytes"] == 10
    assert (int8["peak_rss_bytes"], int8["engine_rss_bytes"]) == (None, None)
    assert not busy(int8)


def test_other_work_on_the_machine_shows_as_a_difference_of_the_two_speedups(source):
    pair = [Contender(engine="fake:ms=4", source=source), Contender(engine="fake:ms=1,slow=3", source=source)]
    disturbed = bench(pair, None, quick(), CLOCKS)[1]
    assert disturbed["cpu_speedup"] == 4.0
    assert disturbed["speedup"] == pytest.approx(4 / 101)
    assert busy(disturbed)


def test_a_long_tail_shows_other_work_too():
    quiet = {"speedup": 2.0, "cpu_speedup": 2.1, "median_ms": 1.0, "p90_ms": 1.9}
    assert not busy(quiet)
    assert busy({**quiet, "p90_ms": 2.1})
    assert busy({**quiet, "cpu_speedup": 2.3})
    assert busy({**quiet, "cpu_speedup": 1.8})


def test_calls_are_spread_over_the_rounds_and_none_is_lost(source):
    for calls, rounds in [(7, 3), (2, 10), (1, 1)]:
        assert (
            bench([Contender(engine="fake", source=source)], None, quick(calls=calls, rounds=rounds))[0]["calls"]
            == calls
        )


def test_warm_up_lasts_its_calls_and_its_seconds(source):
    contender = Contender(engine="fake:ms=10", source=source)
    bench([contender], None, quick(warmup=3, calls=1, rounds=1), CLOCKS)
    assert World.log.count("10") == 3 + 1 + 1
    World.log.clear()
    bench([contender], None, quick(warmup=3, seconds=0.05, calls=1, rounds=1), CLOCKS)
    assert World.log.count("10") == 6 + 1 + 1  # 50 ms after the first answer are five more calls


def test_random_images_are_seeded_and_in_range(source):
    contender = Contender(engine="fake", source=source)
    bench([contender], None, quick(batch=5), CLOCKS)
    first = [images.copy() for images in World.seen]
    World.seen.clear()
    bench([contender], None, quick(batch=5), CLOCKS)
    assert all(np.array_equal(a, b) for a, b in zip(first, World.seen, strict=True))
    assert first[0].shape == (5, 1, 2, 2)
    assert first[0].dtype == np.float32
    assert 0 <= min(map(np.min, first)) < max(map(np.max, first)) <= 1
    assert not np.array_equal(first[0], first[2])


def test_given_images_are_fed_in_order_and_repeated(source):
    images = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1) * np.ones((1, 1, 2, 2), dtype=np.float32)
    bench([Contender(engine="fake", source=source)], images, quick(batch=2, warmup=3), CLOCKS)
    assert [batch[:, 0, 0, 0].tolist() for batch in World.seen[:2]] == [
        [0, 1],
        [0, 1],
    ]  # the check, then the first of all
    assert [batch[:, 0, 0, 0].tolist() for batch in World.seen[2:4]] == [[2, 0], [1, 2]]


@pytest.mark.parametrize("shape", [(3, 1, 2, 3), (3, 2, 2, 2), (1, 2, 2), (0, 1, 2, 2)])
def test_images_of_another_shape_are_refused(source, shape):
    with pytest.raises(DataError, match=r"takes images \(N, 1, 2, 2\)"):
        bench([Contender(engine="fake", source=source)], np.zeros(shape, dtype=np.float32), quick())


def test_an_engine_that_returns_no_logits_is_refused_and_closed(source):
    with pytest.raises(EngineError, match=r"expected logits \(1, K\)"):
        bench([Contender(engine="fake:ms=7", source=source), Contender(engine="wrong", source=source)], None, quick())
    assert "close 7" in World.log


@pytest.mark.parametrize(
    "change", [{"batch": 0}, {"calls": 0}, {"rounds": 0}, {"threads": 0}, {"warmup": -1}, {"seconds": float("inf")}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(OptionError):
        BenchSettings(**change)


def test_the_fastest_engine_is_named_by_measurement(source):
    found = fastest(source, None, quick(calls=20), ["fake:ms=3", "absent", "fake:ms=0.2"])
    assert found.left_out == {"absent": "pip install it"}
    assert set(found.median_ms) == {"fake:ms=3", "fake:ms=0.2"}
    assert found.engine == min(found.median_ms, key=found.median_ms.__getitem__)


def test_the_least_median_wins(source, monkeypatch):
    monkeypatch.setattr("rctk.measure.bench.SYSTEM", CLOCKS)
    assert fastest(source, None, quick(), ["fake:ms=3", "fake:ms=1", "fake:ms=2"]) == (
        "fake:ms=1",
        {"fake:ms=3": 3.0, "fake:ms=1": 1.0, "fake:ms=2": 2.0},
        {},
    )


def test_no_installed_engine_is_an_error_with_every_reason(source):
    with pytest.raises(EngineUnavailableError, match=r"absent: pip install it.*rctk doctor"):
        fastest(source, None, quick(), ["absent"])


def test_instruments_never_compete_and_torch_only_for_float_files(source):
    names = candidates(source)
    assert "onnxruntime" in names
    assert "torch" in names
    assert not {"twin", "reference"} & set(names)
    assert "torch" not in candidates(Source(path=source.path, input=source.input, role="int8", target="cpu"))


def test_threads_go_to_engines_that_have_them():
    pytest.importorskip("onnxruntime")
    assert with_threads("onnxruntime", 2) == "onnxruntime:threads=2"
    assert with_threads("onnxruntime:threads=4", 2) == "onnxruntime:threads=4"
    assert with_threads("fake:ms=2", 1) == "fake:ms=2"
    with pytest.raises(OptionError, match="no setting for threads"):
        with_threads("fake:ms=2", 2)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_onnx_runtime_is_timed_beside_a_hundred_times_smaller_net(linear):
    large, small = linear(side=64, classes=1000, name="large.onnx"), linear(side=64, classes=10, name="small.onnx")
    contenders = [Contender(engine="onnxruntime", source=source) for source in (large, small)]
    images = np.random.default_rng(0).random((40, 1, 64, 64), dtype=np.float32)
    first, second = bench(contenders, images, BenchSettings(batch=4, seconds=0.02, calls=40))
    assert second["speedup"] > 3
    assert second["cpu_speedup"] > 3
    assert first["file_bytes"] > 50 * second["file_bytes"]
    assert first["engine_rss_bytes"] > second["engine_rss_bytes"]
    assert 0 < first["min_ms"] <= first["median_ms"] <= first["p99_ms"] <= first["max_ms"]


def test_an_engine_that_tells_where_its_nodes_run_has_it_in_the_record(source, monkeypatch):
    placed = {"TensorrtExecutionProvider": 9, "CUDAExecutionProvider": 1}
    monkeypatch.setattr(FakeEngine, "placement", lambda engine: placed, raising=False)
    values = bench([Contender(engine="fake", source=source)], None, quick())[0]
    assert values["nodes_by_provider"] == placed
    assert shared_text(values["nodes_by_provider"]) == (
        "of 10 nodes run: 90% TensorrtExecutionProvider, 10% CUDAExecutionProvider"
    )
    assert shared_text({"CPUExecutionProvider": 3}) == shared_text({}) == ""
