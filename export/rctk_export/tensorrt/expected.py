"""What a parsed network asks for: which weighted layers have both inputs quantized, and where others lost it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rctk_export.tensorrt.api import trt


class Expected(NamedTuple):
    """A layer that multiplies by weights."""

    name: str
    """As in the ONNX file."""
    op: str
    """TensorRT's word for it, such as ``CONVOLUTION``."""
    quantizers: tuple[str, ...]
    """The DQ layers that its inputs come from."""
    cause: str
    """Why it cannot run in int8; empty where both inputs are quantized."""


def quantizes(network: trt.INetworkDefinition) -> bool:
    """Return whether the network holds Q/DQ."""
    return any(network.get_layer(i).type == trt.LayerType.QUANTIZE for i in range(network.num_layers)) or any(
        network.get_layer(i).type == trt.LayerType.DEQUANTIZE for i in range(network.num_layers)
    )


def expected_layers(network: trt.INetworkDefinition) -> Iterator[Expected]:
    """Yield every convolution and matrix product of ``network``, in its order."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    weighted = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    for layer in layers:
        if layer.type not in weighted:
            continue
        sources = [_source(layer, slot, makers) for slot in (0, 1)]
        found = tuple(name for name, dequantizes in sources if dequantizes)
        floats = [
            f"its {word} comes from {name!r} in float"
            for word, (name, dequantizes) in zip(("input", "weight"), sources, strict=True)
            if not dequantizes
        ]
        yield Expected(layer.name, layer.type.name, found, " and ".join(floats))


def _source(layer: trt.ILayer, slot: int, makers: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the layer that an input comes from, through layers that only move values, and whether it is a DQ."""
    moves = {trt.LayerType.SHUFFLE, trt.LayerType.POOLING, trt.LayerType.IDENTITY, trt.LayerType.SLICE}
    tensor = layer.get_input(slot) if slot < layer.num_inputs else None
    name = "the file" if tensor is None else tensor.name
    while tensor is not None and tensor.name in makers:
        maker = makers[tensor.name]
        name = maker.name
        if maker.type == trt.LayerType.DEQUANTIZE:
            return name, True
        if maker.type not in moves:
            break
        tensor = maker.get_input(0)
    return name, False
