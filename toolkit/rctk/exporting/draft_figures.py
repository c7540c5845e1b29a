"""What a quantized graph is worth, counted in and judged on its int8 file by code that no step controls."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt
import onnx

from rctk.compress.figures import accuracy
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.exporting.quantized_checkpoint import QuantizedModel
from rctk.progress import Progress
from rctk_export.lint.layers import layer_rows, parameter_count
from rctk_export.lint.view import View
from rctk_export.onnx_files import serialize
from rctk_export.onnx_module import OnnxModule


@dataclass(frozen=True, kw_only=True)
class GraphFigures:
    """Cost and clean accuracy of one ONNX file.

    Attributes:
        parameters: Weights, biases, gains and offsets of the network, without what a target pads its layers with.
        zero_weights: Share of the stored convolution and linear weights that are 0, in [0, 1], likewise.
        macs: Multiplications with addition for one image, likewise; None where a shape is unknown.
        file_bytes: Length of the file.
        clean_accuracy: Share of ``samples`` images that it classifies rightly, as a torch module of its graph.
        samples: Images behind ``clean_accuracy``.
    """

    parameters: int
    zero_weights: float
    macs: int | None
    file_bytes: int
    clean_accuracy: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def graph_figures(model: onnx.ModelProto, images: Split) -> GraphFigures:
    """Count and judge a float graph that reads images in [0, 1]."""
    return _figures(model, model, images)


def quantized_figures(
    model: QuantizedModel, target: str, calibration: Split, images: Split, progress: Progress, *, seed: int = 0
) -> GraphFigures:
    """Write the int8 file of ``model`` for ``target`` and judge that; ``calibration`` sets the ranges still open."""
    made = int8_files(model.draft, (target,), calibration, progress, seed=seed)
    return _figures(made[0].model, model.draft.model, images)


def _figures(model: onnx.ModelProto, network: onnx.ModelProto, images: Split) -> GraphFigures:
    macs = [row.macs for row in layer_rows(network)]
    return GraphFigures(
        parameters=parameter_count(network),
        zero_weights=_zero_weights(model, network),
        macs=None if None in macs else sum(count or 0 for count in macs),
        file_bytes=len(serialize(model)),
        clean_accuracy=accuracy(OnnxModule(model), images),
        samples=len(images),
    )


def _zero_weights(model: onnx.ModelProto, network: onnx.ModelProto) -> float:
    """Count zeros among floats, or codes, whose zero point is 0; padding lies behind what the network has."""
    shapes = {name: weight.shape for name, weight in _weights(network).items()}
    weights = [weight[tuple(map(slice, shapes.get(name, weight.shape)))] for name, weight in _weights(model).items()]
    total = sum(weight.size for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def _weights(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Return what each layer multiplies by, as stored."""
    view = View(model)
    roots = {node.name: view.root(node.input[1]) for node in view.layers}
    return {layer: view.graph.constants[root] for layer, root in roots.items() if root in view.graph.constants}
