"""Rules of OpenVINO's int8 kernels on x86: those of ``cpu``, save at residual adds, where a pair changes the meaning.

Measured with OpenVINO 2026.4.1: in a kernel that holds convolution, residual add and Q, a pair between the first two
is computed without its rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from rctk_export.lint import cpu
from rctk_export.lint.rule import Place, Rule
from rctk_export.lint.view import View, label

_ACTIVATIONS = {"Relu", "Clip"}
_MOVES = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
_SUMS = {"ReduceMean", "ReduceSum"}
_OTHERS = {"surrounded", "narrow-codes"}
"""Rules of ``cpu`` that do not hold here, or were measured with ONNX Runtime alone."""


def surrounded(view: View) -> Iterator[Place]:
    """A layer reads straight from DQ; a convolution is followed by Q, by an add to something quantized, or summed."""
    yield from cpu.read_from_dq(view)
    for layer in cpu.quantized_convolutions(view):
        problem = cpu.open_end(view, layer)
        if problem and not _added(view, layer) and not _summed(view, layer):
            yield Place(label(layer), problem)


def _added(view: View, layer: NodeProto) -> bool:
    """Return whether the output of ``layer``, or of its activation function, meets a quantized tensor in an add."""
    user = view.only_user(layer.output[0])
    tensor = layer.output[0]
    if user is not None and user.op_type in _ACTIVATIONS:
        tensor = user.output[0]
        user = view.only_user(tensor)
    if user is None or user.op_type != "Add":
        return False
    return all(other == tensor or view.dequantizers(other) for other in user.input) and len({*user.input}) == 2


def _summed(view: View, layer: NodeProto) -> bool:
    """Return whether a mean or a sum alone reads the output of ``layer``, where OpenVINO misreads codes."""
    user = view.only_user(layer.output[0])
    while user is not None and user.op_type in _ACTIVATIONS | _MOVES:
        user = view.only_user(user.output[0])
    return user is not None and user.op_type in _SUMS


def rounded_sum(view: View) -> Iterator[Place]:
    """No pair stands between a convolution and a residual add that OpenVINO computes in its kernel."""
    for add in (node for node in view.graph.nodes if node.op_type == "Add"):
        pairs = [view.quantizers.get(tensor) for tensor in add.input]
        if not all(pair is not None and pair.role == "activation" for pair in pairs):
            continue
        for tensor, other in (tuple(add.input), tuple(reversed(add.input))):
            layer = _behind_pair(view, tensor)
            if layer is not None and layer.input[0] != other:
                yield Place(label(add), f"adds the output of {label(layer)!r} behind a pair, but will not round it")
                break


def _behind_pair(view: View, tensor: str) -> NodeProto | None:
    """Return the convolution whose output goes through Q and DQ to ``tensor`` and nowhere else."""
    for _ in range(2):
        maker = view.producer(tensor)
        if maker is None or view.only_user(tensor) is None:
            return None
        tensor = maker.input[0]
    maker = view.producer(tensor)
    if maker is not None and maker.op_type in _ACTIVATIONS and view.only_user(tensor) is not None:
        tensor = maker.input[0]
        maker = view.producer(tensor)
    return maker if maker is not None and maker.op_type == "Conv" and view.only_user(tensor) is not None else None


RULES = (
    *(rule for rule in cpu.RULES if rule.id not in _OTHERS),
    Rule(
        id="surrounded",
        check=surrounded,
        remedy="put DQ directly before the layer, and Q or a residual add directly after it",
    ),
    Rule(id="rounded-sum", check=rounded_sum, remedy="leave that pair out, as `rctk export --target openvino` does"),
)
