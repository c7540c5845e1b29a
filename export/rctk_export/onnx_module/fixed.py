"""Results of the steps that depend on constants only, kept while those constants stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rctk_export.onnx_module.plan import Plan, Step


class FixedValues:
    """Runs the fixed steps of one plan, or takes their results from the last time.

    Results are kept if no constant behind them requires a gradient, and used again while each of them is the same
    tensor with the same storage and version. PyTorch counts in-place changes; one through ``.data`` escapes it.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps = plan.fixed
        made = {slot for step in plan.fixed for slot in step.outputs if slot}
        read = {slot for step in plan.fixed for slot in step.inputs if slot} - made
        self._made, self._read = sorted(made), sorted(read)
        self.names = {name for step in plan.fixed for name in step.names} | {n for s, n in plan.constants if s in read}
        self._sources: list[Tensor] = []
        self._states: list[tuple[int, int]] = []
        self._results: list[Any] = []

    def fill(self, values: list[Any], run: Callable[[Step, list[Any]], None], *, keep: bool) -> None:
        """Fill the slots of the fixed steps.

        Args:
            values: All slots; the constants are in theirs.
            run: Runs one step on the slots.
            keep: False if something outside the constants has a say in the results.
        """
        sources: list[Tensor] = [values[slot] for slot in self._read]
        if not keep or any(tensor.requires_grad or tensor.is_inference() for tensor in sources):
            for step in self._steps:
                run(step, values)
            return
        states = [(tensor.data_ptr(), tensor._version) for tensor in sources]  # noqa: SLF001 (PyTorch's public counter has this name)
        same = len(sources) == len(self._sources) and all(a is b for a, b in zip(sources, self._sources, strict=True))
        if not same or states != self._states:
            with torch.inference_mode(mode=False), torch.no_grad():
                for step in self._steps:
                    run(step, values)
            self._sources, self._states = sources, states
            self._results = [values[slot] for slot in self._made]
            return
        for slot, result in zip(self._made, self._results, strict=True):
            values[slot] = result
