"""How engines are timed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rctk_kernels.errors import OptionError

Scenario = Literal["single-stream", "multi-stream", "offline"]
OFFLINE_BATCHES = 64
"""Batches of one offline query."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How engines are timed.

    Warm-up goes on until ``warmup`` calls are made, ``seconds`` are over, and the median of the last ten calls lies
    within 5 % of the median of the ten before; after ``settle_seconds`` it ends anyway, and the record says so.

    Attributes:
        batch: Images per call.
        threads: Threads of an engine that has such a setting.
        scenario: How queries arrive; see :class:`~rctk.measure.runner.Runner`.
        streams: Engines side by side; more than one for multi-stream and offline only.
        gap_ms: Pause after every call, for products that wait for the next frame: clocks may fall meanwhile.
        warmup: Calls before the first that counts, at least.
        seconds: Warm-up lasts at least so long.
        settle_seconds: And at most so long, calls allowing.
        calls: Queries that count, per engine.
        rounds: The engines take turns so many times: A B A B. A slow minute then slows all of them.
        memory: Measure memory too, each engine in a process of its own.
        cold_starts: So many new processes measure the time to the first answer; 0 for none.
        energy: Sample the power sensors; the turns of each engine then last ``energy_seconds`` at least.
        energy_seconds: Length of each engine's turns together.
        idle_seconds: How long the idle power is watched before any engine is loaded.
        seed: Of the random images, where no images are given.
    """

    batch: int = 1
    threads: int = 1
    scenario: Scenario = "single-stream"
    streams: int = 1
    gap_ms: float = 0.0
    warmup: int = 20
    seconds: float = 0.2
    settle_seconds: float = 2.0
    calls: int = 200
    rounds: int = 10
    memory: bool = True
    cold_starts: int = 0
    energy: bool = False
    energy_seconds: float = 12.0
    idle_seconds: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "streams", "calls", "rounds"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.warmup < 0 or not 0 <= self.seconds < math.inf:
            raise OptionError(f"warm-up cannot be negative or endless, got {self.warmup} calls and {self.seconds} s")
        for name in ("gap_ms", "settle_seconds", "energy_seconds", "idle_seconds", "cold_starts", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} must be 0 or more and not endless, got {getattr(self, name)}")
        if self.energy and self.idle_seconds == 0:
            raise OptionError("energy needs idle_seconds above 0: what the machine draws anyway is subtracted")
        if self.scenario not in get_args(Scenario):
            raise OptionError(f"unknown scenario {self.scenario!r}; choose from {', '.join(get_args(Scenario))}")
        if self.scenario == "single-stream" and self.streams > 1:
            raise OptionError(f"{self.streams} streams need --scenario multi-stream or offline")
        if self.scenario == "multi-stream" and self.streams == 1:
            raise OptionError("multi-stream needs two streams or more; add --streams 2")

    @property
    def batches_per_query(self) -> int:
        """How many batches one query holds."""
        return {"single-stream": 1, "multi-stream": self.streams, "offline": OFFLINE_BATCHES}[self.scenario]
