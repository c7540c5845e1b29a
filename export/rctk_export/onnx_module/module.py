"""An ONNX classifier graph as a differentiable torch module."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from rctk_export.onnx_files import load_onnx
from rctk_export.onnx_module.codes import Codes
from rctk_export.onnx_module.fixed import FixedValues
from rctk_export.onnx_module.graph import code_names, quantized, read_graph, trainable
from rctk_export.onnx_module.node import Settings
from rctk_export.onnx_module.plan import Plan, Step, make_plan
from rctk_export.onnx_module.quantized import to_pixels
from rctk_kernels.errors import GraphError, OptionError

Value = Any  # a tensor, codes in exact mode, or None
Hook = Callable[[Tensor], Tensor]


class OnnxModule(nn.Module):
    """Runs an ONNX graph that maps images to logits; gradients reach the images and, in fast mode, the parameters.

    Floats are float32 in fast mode and float64 in exact mode, whatever the file stores; a cast to float16 does not
    round. Quantized operands multiply as integers. Exact mode equals the reference engine code for code; in fast mode
    a code may differ where a value lies within float32 rounding of the edge between two codes. A graph that reads
    uint8 gets the nearest pixels of images in [0, 1]. A batch size that the file fixes is ignored if images stay apart
    in another batch; otherwise they go through in batches of that size.

    Attributes:
        rewrite: Tensor name to a function that is applied to the tensor once, where it is made (or first read, for an
            initializer): observers, fake quantizers. Changing the dictionary takes effect in the next call.
        input_name: Name of the graph's input.
        output_name: Name of the graph's output.

    Args:
        model: The graph, or the path of its file.
        mode: ``fast`` or ``exact``.
        ste: Gradient of rounding outside the clip range: 0 (``clipped``) or 1 (``identity``).

    Weights and biases are parameters, under ``initializers`` by their names in the graph; codes, scales, zero points
    and other constants are buffers. What depends only on tensors without ``requires_grad`` (int8 weights and their
    scales) is computed once and again when one of them changes in place. Sizes, clip bounds and zero points of
    quantizers are read at construction. Limits: the module cannot be pickled; send the ONNX file instead.

    Example:
        >>> from onnx import TensorProto, helper
        >>> graph = helper.make_graph(
        ...     [helper.make_node("Relu", ["x"], ["y"])],
        ...     "g",
        ...     [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        ...     [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        ... )
        >>> OnnxModule(helper.make_model(graph))(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        *,
        mode: Literal["fast", "exact"] = "fast",
        ste: Literal["clipped", "identity"] = "clipped",
    ) -> None:
        super().__init__()
        for name, value, known in (("mode", mode, ("fast", "exact")), ("ste", ste, ("clipped", "identity"))):
            if value not in known:
                raise OptionError(f"{name} must be one of {known}, got {value!r}")
        proto = load_onnx(model) if isinstance(model, Path) else model
        dtype = torch.float64 if mode == "exact" else torch.float32
        self._graph = read_graph(proto, Settings(dtype, mode == "exact", ste))
        self.input_name, self.output_name = self._graph.input, self._graph.output
        self.rewrite: dict[str, Hook] = {}
        self._keys: dict[str, str] = {}
        self._host: dict[str, Tensor] = {}
        self._store()
        made = {name for node in self._graph.nodes for name in node.outputs if name}
        self._known = {self.input_name, *self._keys, *self._host, *made}
        self._plans = [self._planned(fuse=mode == "fast")]
        self._codes = code_names(self._graph)
        self._stays_apart: bool | None = None

    def _store(self) -> None:
        """Register the constants that steps read: weights as parameters, values as buffers, sizes on the host."""
        graph = self._graph
        weights, codes = trainable(graph.nodes, graph.constants), quantized(graph.nodes, graph.constants)
        read = {name for node in graph.nodes for name in node.inputs}
        for name, constant in graph.constants.items():
            if name not in read:
                continue
            if not constant.tensor.is_floating_point() and name not in codes:
                self._host[name] = constant.tensor
                continue
            key = "graph/" + name.replace(".", "/")
            while key in self._keys.values():
                key += "_"
            self._keys[name] = key
            if name in weights:
                self.register_parameter(key, nn.Parameter(constant.tensor.clone()))
            else:
                self.register_buffer(key, constant.tensor.clone())

    @property
    def initializers(self) -> dict[str, Tensor]:
        """Name in the graph to parameter, buffer or size; the tensors themselves, not copies."""
        return {name: self._tensor(name) for name in (*self._keys, *self._host)}

    def _tensor(self, name: str) -> Tensor:
        key = self._keys.get(name)
        if key is None:
            return self._host[name]
        tensor = self._parameters[key] if key in self._parameters else self._buffers[key]
        assert tensor is not None
        return tensor

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: ``(N, C, H, W)``, any ``N``; float, in the units that the graph expects.

        Returns:
            Logits ``(N, K)`` float32; axes of size 1 behind ``K`` are dropped.
        """
        self._check(images)
        if len(images) == 0:
            return self.forward(images.new_zeros((1, *images.shape[1:])))[:0]
        parts = [self._logits(part) for part in self._parts(images)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)[: len(images)]

    def observe(self, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Run the graph and return some of its tensors.

        Args:
            images: As for :meth:`forward`.
            names: Of tensors in the graph; also of the input and of initializers.

        Returns:
            Name to value: floats, and in exact mode int64 codes on both sides of a DequantizeLinear.
        """
        self._check(images)
        self._check_names(names, "observed")
        runs = [self._run(part, names) for part in self._parts(images)]
        plain = [{name: self._observed(name, run[name]) for name in names} for run in runs]
        if len(plain) == 1:
            return plain[0]
        made = {name: [run[name] for run in plain] for name in names if name not in self._keys}
        return plain[0] | {name: torch.cat(values)[: len(images)] for name, values in made.items()}

    def _observed(self, name: str, value: Value) -> Tensor:
        if self._graph.settings.exact and (isinstance(value, Codes) or name in self._codes):
            codes: Tensor = value.q if isinstance(value, Codes) else value
            return codes.long()
        return _real(value)

    def _check(self, images: Tensor) -> None:
        expected = self._graph.shape
        fits = not expected or (
            len(expected) == images.ndim
            and all(a is None or a == b for a, b in zip(expected[1:], images.shape[1:], strict=True))
        )
        if not fits:
            sizes = ", ".join("?" if size is None else str(size) for size in expected[1:])
            raise GraphError(f"the graph takes images (N, {sizes}), got {tuple(images.shape)}; resize them")

    def _check_names(self, names: Collection[str], what: str) -> None:
        unknown = sorted(set(names) - self._known)
        if unknown:
            raise GraphError(
                f"{unknown} cannot be {what}, the graph makes no such tensors; use names from the ONNX file"
            )

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        """Yield all images at once, or in batches of the size that the file fixes, the last one filled by repeating."""
        batch = self._graph.shape[0] if self._graph.shape else None
        if batch is None or len(images) == batch or self._apart(batch, images):
            yield images
            return
        order = torch.arange(-(-len(images) // batch) * batch, device=images.device) % len(images)
        yield from (images[chunk] for chunk in order.split(batch))

    def _apart(self, batch: int, images: Tensor) -> bool:
        """Find out, once, whether a graph made for ``batch`` images keeps them apart in a batch of another size."""
        if self._stays_apart is None:
            shape = (batch + 1, *images.shape[1:])
            probe = torch.linspace(0, 1, math.prod(shape), device=images.device).reshape(shape)
            hooks, self.rewrite = self.rewrite, {}
            try:
                with torch.no_grad():
                    first, second = self._logits(probe), self._logits(torch.cat([probe[:-1], probe[:1]]))
                same, other = torch.equal(first[:-1], second[:-1]), torch.equal(first[-1], second[-1])
                self._stays_apart = same and not other
            except (RuntimeError, GraphError):  # a size in the graph fits no other batch
                self._stays_apart = False
            finally:
                self.rewrite = hooks
        return self._stays_apart

    def _logits(self, images: Tensor) -> Tensor:
        logits = _real(self._run(images, (self.output_name,))[self.output_name])
        if logits.ndim == 0 or len(logits) != len(images):
            raise GraphError(f"{len(images)} images gave an output {tuple(logits.shape)}; logits need a row per image")
        return logits.flatten(1).float()

    def _run(self, images: Tensor, wanted: Collection[str]) -> dict[str, Value]:
        """Run the steps until all values called ``wanted`` are there."""
        if self.rewrite:
            self._check_names(self.rewrite, "rewritten")
        plan, fixed = self._plan((*wanted, *self.rewrite))
        values: list[Value] = [None] * len(plan.slots)
        self._load(plan, fixed, values)
        dtype = self._graph.settings.dtype
        entering = to_pixels(images, dtype) if self._graph.pixels else images.to(dtype)
        values[1] = self._hooked(self.input_name, entering)
        kept = {name: values[plan.slots[name]] for name in wanted}
        missing = {name for name, value in kept.items() if value is None}
        for step in plan.steps:
            if not missing:
                break
            self._do(step, values)
            for name, slot in zip(step.names, step.outputs, strict=True):
                if name in missing:
                    kept[name] = values[slot]
                    missing.discard(name)
            for slot in step.frees:
                values[slot] = None
        return kept

    def _do(self, step: Step, values: list[Value]) -> None:
        results = step.function(*[values[slot] for slot in step.inputs])
        for slot, name, result in zip(step.outputs, step.names, results if step.many else (results,), strict=False):
            if slot:
                values[slot] = self._hooked(name, result) if self.rewrite else result

    def _hooked(self, name: str, value: Value) -> Value:
        hook = self.rewrite.get(name)
        return value if hook is None else hook(_real(value))

    def _planned(self, *, fuse: bool) -> tuple[Plan, FixedValues]:
        plan = make_plan(self._graph, fuse=fuse)
        return plan, FixedValues(plan)

    def _plan(self, names: Collection[str]) -> tuple[Plan, FixedValues]:
        """Return the fused plan, or one with every tensor of the graph if a name asks for it."""
        if self._plans[0][0].hidden.isdisjoint(names):
            return self._plans[0]
        if len(self._plans) == 1:
            self._plans.append(self._planned(fuse=False))
        return self._plans[1]

    def _load(self, plan: Plan, fixed: FixedValues, values: list[Value]) -> None:
        """Fill the slots of the constants and of what depends on them only."""
        for slot, name in plan.constants:
            values[slot] = self._hooked(name, self._tensor(name)) if self.rewrite else self._tensor(name)
        if plan.fixed:
            fixed.fill(values, self._do, keep=fixed.names.isdisjoint(self.rewrite))


def _real(value: Value) -> Tensor:
    tensor: Tensor = value.real() if isinstance(value, Codes) else value
    return tensor
