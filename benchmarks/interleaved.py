"""Time several calls in turns, A B A B, so that a slow minute of the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rctk.measure.latency import Latency
from rctk_export.input_spec import FloatNCHW, FloatNK

Call = Callable[[FloatNCHW], FloatNK]
TURN_SECONDS, BLOCK_SECONDS = 0.05, 0.002
"""A turn of one contender, and the blocks of calls in it whose CPU time is read: short, so that some of them fall
between the interruptions of a busy machine."""


class Timed(NamedTuple):
    """What one contender took: least process-CPU time per call over all blocks, and the wall times of its calls."""

    cpu_ms: float
    wall: Latency


def take_turns(calls: Sequence[Call], inputs: Sequence[FloatNCHW], rounds: int) -> list[Timed]:
    """Give every call ``rounds`` turns of about 50 ms on the same inputs."""
    plans = [blocks_and_calls(call, inputs) for call in calls]
    cpu_ns = [float("inf")] * len(calls)
    wall_ns: list[list[int]] = [[] for _ in calls]
    for _ in range(rounds):
        for i, (call, (blocks, count)) in enumerate(zip(calls, plans, strict=True)):
            call(inputs[-1])  # finds the caches full of another contender
            for block in range(blocks):
                start = time.process_time_ns()
                wall_ns[i] += times_ns(call, inputs, block * count, count)
                cpu_ns[i] = min(cpu_ns[i], (time.process_time_ns() - start) / count)
    return [
        Timed(cpu / 1e6, Latency.of(np.array(wall, dtype=float))) for cpu, wall in zip(cpu_ns, wall_ns, strict=True)
    ]


def times_ns(call: Call, inputs: Sequence[FloatNCHW], first: int, count: int) -> list[int]:
    """Return the wall time of each of ``count`` calls, which take the inputs in turn."""
    times = []
    for i in range(first, first + count):
        images = inputs[i % len(inputs)]
        start = time.perf_counter_ns()
        call(images)
        times.append(time.perf_counter_ns() - start)
    return times


def blocks_and_calls(call: Call, inputs: Sequence[FloatNCHW]) -> tuple[int, int]:
    """Warm up, and return how many blocks fill a turn, at least 2, and how many calls a block, at least 1."""
    times_ns(call, inputs, 0, len(inputs))
    seconds = min(times_ns(call, inputs, 0, len(inputs))) / 1e9
    count = max(1, round(BLOCK_SECONDS / seconds))
    return max(2, round(TURN_SECONDS / (count * seconds))), count
