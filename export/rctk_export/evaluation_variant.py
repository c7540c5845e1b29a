"""The same int8 classifier with logits that are not rounded: for score attacks, never for shipping.

A file whose logits pass through Q/DQ gives about two hundred distinct values. Ties and flat steps then starve query
attacks and flatter the engine. Most files that rctk writes leave their last layer in float already; nets that end in a
pooling and files of other tools often do not. Rounding never swaps two logits, so the variant names the same class
wherever the shipped file has no tie.

A last layer that is int8 inside but leaves in float needs no variant: taking the rounding of its input away as well
changed the share of Square's proposals with an unchanged margin by nothing (12.4 % before and after on a small residual
net, 500 images), and moved labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from rctk_export.graph import Graph
from rctk_export.input_spec import FloatNK
from rctk_export.score_resolution import Resolution, score_resolution
from rctk_kernels.errors import MismatchError

__all__ = ["Resolution", "check_same_labels", "score_resolution", "unrounded_logits"]


def unrounded_logits(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a copy of ``model`` whose logits skip the Q/DQ pair at the output; None where there is no such pair.

    Operators that only move values (Reshape, Flatten, ...) may stand between the pair and the output.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    last = graph.outputs[0]
    dequantize = graph.producer(last)
    while dequantize is not None and dequantize.op_type in {"Reshape", "Flatten", "Squeeze", "Identity"}:
        last = dequantize.input[0]
        dequantize = graph.producer(last)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = graph.producer(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    source = quantize.input[0]
    if last in graph.outputs:
        maker = graph.producer(source)
        assert maker is not None  # logits that are an input would be no classifier
        graph.replace_readers(source, last)
        graph.remove(quantize)
        graph.remove(dequantize)
        maker.output[list(maker.output).index(source)] = last
    else:
        graph.replace_readers(last, source)
    return graph.finish()


def check_same_labels(rounded: FloatNK, unrounded: FloatNK) -> npt.NDArray[np.bool_]:
    """Return where the rounded logits are tied, ``(N,)``; :class:`MismatchError` if labels differ anywhere else.

    Args:
        rounded: Logits of the shipped file, ``(N, K)``.
        unrounded: Logits of its variant on the same images.
    """
    largest = rounded.max(axis=1, keepdims=True)
    allowed = np.take_along_axis(rounded, unrounded.argmax(axis=1)[:, None], axis=1) == largest
    if not allowed.all():
        wrong = int((~allowed).sum())
        raise MismatchError(
            f"the variant with unrounded logits names another class on {wrong} of {len(rounded)} images that are not "
            "tied in the shipped file; attack the shipped file itself"
        )
    tied: npt.NDArray[np.bool_] = (rounded == largest).sum(axis=1) > 1
    return tied
