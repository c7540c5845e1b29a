"""Put the Q/DQ pairs of a plan into a float graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from rctk_export.graph import Graph, Reader
from rctk_export.quantize.formats import Formats, Weight
from rctk_export.quantize.grid import (
    Grid,
    bias_codes,
    given_grid,
    scales_that_hold,
    shaped,
    signed_grid,
    unsigned_grid,
    weight_codes,
    weight_scales,
)
from rctk_export.quantize.plan import Layer, Plan, dynamic_inputs
from rctk_kernels.errors import QuantizationError

Range = tuple[float, float]


def write_qdq(
    model: onnx.ModelProto, plan: Plan, ranges: Mapping[str, Range], formats: Formats | None = None
) -> onnx.ModelProto:
    """Return a quantized copy of ``model``.

    Args:
        model: A simplified float graph.
        plan: Of that very graph.
        ranges: Smallest and largest value of every tensor in ``plan.calibrated()`` without a grid in ``formats``.
        formats: Widths, learned grids and codes; 8 bits throughout by default. Where activation codes have less than
            8 bits, a Clip stands in front of their QuantizeLinear, which saturates at 8.

    Raises:
        QuantizationError: A range is missing or not finite, or a learned grid does not fit the target.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    writer = _Writer(Graph(copy), plan, ranges, formats or Formats())
    return writer.run()


def slot_of_images(graph: Graph, node: onnx.NodeProto) -> int:
    """Return which input of a node of a normalisation, or of a layer, is computed."""
    return dynamic_inputs(graph, node)[0].slot


class _Writer:
    def __init__(self, graph: Graph, plan: Plan, ranges: Mapping[str, Range], formats: Formats) -> None:
        self.graph, self.plan, self.ranges, self.formats = graph, plan, ranges, formats
        self.nodes = {node.name: node for node in graph.nodes}
        self.grids: dict[str, Grid] = {}
        self.shared: dict[tuple[str, bytes], str] = {}

    def run(self) -> onnx.ModelProto:
        for tensor, source in self.plan.tensors.items():
            self.grids[tensor] = self._grid(source)
        for tensor, channels in self.plan.widened.items():
            self._widen(tensor, channels)
        for layer in self.plan.layers:
            self._layer(layer)
        self._drop_saturating()
        for tensor in self.grids:
            self._activation(tensor)
        return self.graph.finish()

    def _grid(self, tensor: str) -> Grid:
        steps = self.formats.steps.get(tensor)
        if steps is not None:
            grid = given_grid(steps, signed=self.plan.signed)
            if grid is None:
                raise QuantizationError(
                    f"the learned grid of {tensor!r}, {steps.low}..{steps.high}, does not fit int8 with zero point 0; "
                    "write --target cpu alone, or learn a grid inside -128..127"
                )
            return grid
        low, high = self.ranges.get(tensor, (np.nan, np.nan))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise QuantizationError(f"tensor {tensor!r} has the range ({low}, {high}); calibrate with finite images")
        bits = self.formats.of_tensor(tensor)
        return signed_grid(low, high, bits) if self.plan.signed else unsigned_grid(low, high, bits)

    def _widen(self, tensor: str, channels: int) -> None:
        """Append zero channels ``(N, C, H, W)`` to the images, and to the weights that alone read their ``tensor``."""
        ((conv, _),) = self.graph.readers(tensor)
        weight = self.graph.constant(conv, 1)
        assert weight is not None
        self.graph.rewrite_constant(conv, 1, np.pad(weight, ((0, 0), (0, channels), (0, 0), (0, 0))))
        first = conv
        while (maker := self.graph.producer(first.input[slot_of_images(self.graph, first)])) is not None:
            first = maker  # of the normalisation; what it makes of the new channels meets weights of 0
            slot = 1 - slot_of_images(self.graph, first)
            value = self.graph.constant(first, slot)
            if value is not None and value.ndim > 2 and value.shape[-3] > 1:
                sides = [(0, channels) if axis == value.ndim - 3 else (0, 0) for axis in range(value.ndim)]
                self.graph.rewrite_constant(first, slot, np.pad(value, sides, constant_values=1))
        slot = slot_of_images(self.graph, first)
        images, wide = first.input[slot], self.graph.fresh(f"{first.input[slot]}.wide")
        pads = self.graph.add_constant(f"{wide}.pads", np.array([0, 0, 0, 0, 0, channels, 0, 0], dtype=np.int64))
        self.graph.insert_before(first, [helper.make_node("Pad", [images, pads], [wide], name=wide)])
        first.input[slot] = wide
        if first is conv:
            self.grids[wide] = self.grids.pop(tensor)

    def _layer(self, layer: Layer) -> None:
        node = self.nodes[layer.name]
        weight, bias = self.graph.constant(node, 1), self.graph.constant(node, 2)
        assert weight is not None
        activation = self.grids[node.input[0]].scale
        if bias is not None and self.plan.integer_bias:
            bias = np.broadcast_to(bias.reshape(-1), weight.shape[layer.axis : layer.axis + 1])
        stored, scales = self._weight(layer, weight, bias if self.plan.integer_bias else None, activation)
        zeros = np.zeros(scales.shape, np.int8)
        axis = layer.axis if scales.ndim else None
        name = f"{node.name}.weight"  # equal layers may share one constant, so its own name could occur twice
        if self.plan.float_weights:
            if layer.name in self.formats.weights or self.formats.of_layer(layer.name) < 8:
                values = stored.astype(np.float32) * shaped(scales, weight.ndim, layer.axis)
                self.graph.rewrite_constant(node, 1, values.astype(np.float32))  # QuantizeLinear finds these codes
            made = self._pair(name, node.input[1], scales, zeros, node, axis)
        else:
            codes = self.graph.add_constant(f"{name}.codes", stored)
            made = self._dequantize(name, codes, scales, zeros, node, axis)
        node.input[1] = made
        if bias is not None and self.plan.integer_bias:
            integers, grid = bias_codes(bias, scales, activation)
            name = f"{node.name}.bias"
            codes = self.graph.add_constant(f"{name}.codes", integers)
            zero = np.zeros(grid.shape, np.int32)
            node.input[2] = self._dequantize(name, codes, grid, zero, node, 0 if grid.ndim else None)

    def _weight(
        self, layer: Layer, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None, activation: np.float32
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return codes and scales of a weight; without given codes, scales grow where an integer bias needs it."""
        bits = self.formats.of_layer(layer.name)
        given = self.formats.weights.get(layer.name)
        if given is None:
            given = Weight(scales=weight_scales(weight, layer.axis, bits, per_channel=self.formats.per_channel))
        scales = given.scales if bias is None else scales_that_hold(given.scales, bias, activation)
        if given.codes is None:
            return weight_codes(weight, scales, layer.axis, bits), scales
        sides = [(0, wide - narrow) for wide, narrow in zip(weight.shape, given.codes.shape, strict=True)]
        codes = np.pad(given.codes, sides)  # the input channels of a widened first layer
        if not np.array_equal(scales, given.scales):
            grown = np.flatnonzero(np.broadcast_to(scales != given.scales, weight.shape[:1]))
            if codes[grown].any():
                raise QuantizationError(
                    f"layer {layer.name!r}: the bias of channel {grown[0]} does not fit int32 on the given weight "
                    "scale; leave the layer's codes to the export, or keep it float with --keep-float"
                )
        return codes, scales

    def _drop_saturating(self) -> None:
        for name in self.plan.saturating:
            node = self.nodes[name]
            maker = self.graph.producer(node.input[0])
            assert maker is not None
            maker.output[list(maker.output).index(node.input[0])] = node.output[0]
            self.graph.remove(node)

    def _activation(self, tensor: str) -> None:
        readers = self.graph.readers(tensor)
        chosen = self.plan.readers.get(tensor)
        if chosen is not None:
            readers = [Reader(node, slot) for node, slot in readers if (node.name, slot) in chosen]
        if readers:
            grid, before = self.grids[tensor], readers[0].node
            clipped = tensor if self._on_grid(tensor) else self._clip(tensor, grid, before)
            made = self._pair(tensor, clipped, grid.scale, grid.zero, before, None)
            self.graph.replace_readers(tensor, made, readers)

    def _on_grid(self, tensor: str) -> bool:
        """Whether all values of ``tensor`` were moved from a tensor that everyone reads quantized, to the same grid."""
        source = self.plan.tensors.get(tensor, tensor)
        return source != tensor and source in self.grids and source not in self.plan.readers

    def _clip(self, tensor: str, grid: Grid, before: onnx.NodeProto) -> str:
        """Put a Clip to the ends of ``grid`` behind ``tensor``, where its type does not end there by itself."""
        if grid.bounds is None:
            return tensor
        names = [
            self.graph.add_constant(f"{tensor}.{end}", np.asarray(bound, dtype=np.float32))
            for end, bound in zip(("low", "high"), grid.bounds, strict=True)
        ]
        out = self.graph.fresh(f"{tensor}.clipped")
        node = helper.make_node("Clip", [tensor, *names], [out], name=f"{tensor}.clip")
        self.graph.insert_before(before, [node])
        return out

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a zero point or scale once per name and value."""
        key = (name, value.tobytes() + str(value.dtype).encode())
        if key not in self.shared:
            self.shared[key] = self.graph.add_constant(name, value)
        return self.shared[key]

    def _pair(  # one Q/DQ pair is these six facts
        self,
        name: str,
        tensor: str,
        scale: npt.ArrayLike,
        zero: npt.NDArray[Any],
        before: onnx.NodeProto,
        axis: int | None,
    ) -> str:
        names = self._grid_names(name, scale, zero)
        out = self.graph.fresh(f"{name}.q")
        quantize = helper.make_node("QuantizeLinear", [tensor, *names], [out], name=f"{name}.quantize")
        if axis is not None:
            quantize.attribute.append(helper.make_attribute("axis", axis))
        self.graph.insert_before(before, [quantize])
        return self._dequantize(name, out, scale, zero, before, axis)

    def _dequantize(
        self,
        name: str,
        codes: str,
        scale: npt.ArrayLike,
        zero: npt.NDArray[Any],
        before: onnx.NodeProto,
        axis: int | None,
    ) -> str:
        out = self.graph.fresh(f"{name}.dq")
        names = self._grid_names(name, scale, zero)
        node = helper.make_node("DequantizeLinear", [codes, *names], [out], name=f"{name}.dequantize")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.graph.insert_before(before, [node])
        return out

    def _grid_names(self, name: str, scale: npt.ArrayLike, zero: npt.NDArray[Any]) -> list[str]:
        scales = np.asarray(scale, dtype=np.float32)
        return [self._constant(f"{name}.scale", scales), self._constant(f"{name}.zero", zero)]
