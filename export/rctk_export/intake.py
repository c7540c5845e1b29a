"""Foreign ONNX classifiers: checked, and brought to the form that everything here expects.

That form: one float32 input ``images`` ``(batch, C, H, W)`` in [0, 1], one float32 output ``logits`` ``(batch, K)``,
normalisation inside, opset 13 or newer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, inliner, numpy_helper

from rctk_export.batch_axis import free_batch
from rctk_export.ends import Step, append_behind_output, insert_behind_input, merge_tensors, rename_tensor
from rctk_export.graph import Graph, attributes
from rctk_export.input_spec import FloatNCHW, InputSpec
from rctk_export.onnx_files import all_graphs
from rctk_export.opset import new_enough
from rctk_export.run_once import run_once
from rctk_export.widen import widen
from rctk_kernels.errors import GraphError

INPUT, OUTPUT = "images", "logits"
NOTES = "rctk.intake"
"""Key of the notes among the model's metadata."""
ROUNDED = "which are rounded to pixels"
"""In a note: the product feeds 8-bit pixels."""
_KINDS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8}
_PASSING = {"Cast", "Identity", "Transpose", "QuantizeLinear", "DequantizeLinear"}
_SHAPING = {"Identity", "Cast", "Flatten", "Reshape", "Squeeze"}
_SCALING = {"Sub", "Add", "Mul", "Div"}


def prepare(model: ModelProto, spec: InputSpec) -> ModelProto:
    """Return a copy of ``model`` in the form of this module; :class:`GraphError` where it is no such classifier.

    A float16 graph becomes float32: weights keep their values, intermediate results are no longer rounded to half
    precision. A uint8 input becomes images in [0, 1]: an int8 graph still rounds them to pixels, a float graph takes
    them times 255 as they are. A batch size that other sizes would break stays fixed. :func:`notes` tells what of this
    happened. A softmax at the end stays; see :func:`strip_softmax`.

    Args:
        model: Any opset from 7 on, weights in memory.
        spec: Shape of its images; mean and std are put in front of the graph.
    """
    ready = inliner.inline_local_functions(model) if model.functions else _copy(model)
    _free_initializers(ready)
    _drop_unused_domains(ready)
    entry, _ = _ends(ready)
    _check_input(entry, spec)
    _check_weights(ready)
    told: list[str] = []
    widen(ready, told)
    _fix_image_size(ready, spec)
    ready = new_enough(ready, told)
    _read_pixels(ready, spec, told)
    _finish_output(ready)
    ready, note = free_batch(ready)
    if note:
        told.append(note)
    _normalise(ready, spec)
    rename_tensor(ready, ready.graph.input[0].name, INPUT)
    rename_tensor(ready, ready.graph.output[0].name, OUTPUT)
    if softmax_output(ready) is not None:
        told.append("the output is a softmax")
    _tell(ready, told)
    return _checked(ready)


def notes(model: ModelProto) -> list[str]:
    """Return what :func:`prepare` changed beyond names, one sentence each."""
    text = next((p.value for p in model.metadata_props if p.key == NOTES), "")
    return text.split("\n") if text else []


def output_classes(model: ModelProto, images: FloatNCHW) -> int:
    """Return the number of logits ``K``: as declared, or as found by classifying ``images``."""
    dims = model.graph.output[0].type.tensor_type.shape.dim
    if len(dims) == 2 and dims[1].dim_value > 0:
        return int(dims[1].dim_value)
    return int(run_once(model, images).shape[1])


def softmax_output(model: ModelProto) -> NodeProto | None:
    """Return the Softmax or LogSoftmax over the classes that makes the output, if there is one.

    Limits: one that is spelt out (Exp, ReduceSum, Div) or whose result is quantized is not recognised.
    """
    producers, readers = Graph(model).index()
    tensor = model.graph.output[0].name
    node = producers.get(tensor)
    while node is not None and node.op_type in _SHAPING:
        tensor = node.input[0]
        node = producers.get(tensor)
        if len(readers.get(tensor, [])) != 1:
            return None
    if node is None or node.op_type not in {"Softmax", "LogSoftmax"} or node.input[0] not in producers:
        return None
    classes = {1, -1} if _rank(model, tensor) == 2 else {1}
    alone = len(readers.get(tensor, [])) == (tensor != model.graph.output[0].name)
    return node if attributes(node).get("axis", -1) in classes and alone else None


def _rank(model: ModelProto, tensor: str) -> int | None:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = next((v.type.tensor_type for v in (*graph.value_info, *graph.output) if v.name == tensor), None)
    return len(found.shape.dim) if found is not None and found.HasField("shape") else None


def strip_softmax(model: ModelProto) -> ModelProto:
    """Return ``model`` without a softmax at its end; the same copy where there is none.

    The largest output stays the largest. LogSoftmax only shifts the logits of an image; Softmax hides large margins
    behind values rounded to 1, which blinds gradients and score-based attacks.
    """
    copy = _copy(model)
    softmax = softmax_output(copy)
    if softmax is None:
        return copy
    source, made = softmax.input[0], softmax.output[0]
    copy.graph.node.remove(softmax)
    merge_tensors(copy, source, made)
    _tell(copy, [*(note for note in notes(copy) if "softmax" not in note), f"the {softmax.op_type} was removed"])
    return copy


def leading_normalisation(model: ModelProto) -> NodeProto | None:
    """Return a node that scales or shifts the input by constants before any layer sees it, if there is one."""
    graph = Graph(model)
    _, readers = graph.index()
    waiting = [graph.inputs[0]]
    while waiting:
        for node, slot in readers.get(waiting.pop(), []):
            if node.op_type in _PASSING and slot == 0:
                waiting.append(node.output[0])
            if node.op_type == "BatchNormalization":
                return node
            if node.op_type in _SCALING and node.input[1 - slot] in graph.constants:
                return node
    return None


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _free_initializers(model: ModelProto) -> None:
    """Old files list weights as inputs too; only what must be fed is an input here."""
    stored = {tensor.name for tensor in model.graph.initializer}
    real = [entry for entry in model.graph.input if entry.name not in stored]
    if len(real) != len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(real)
        model.ir_version = max(model.ir_version, 4)


def _drop_unused_domains(model: ModelProto) -> None:
    used = {"", "ai.onnx", *(node.domain for graph in all_graphs(model.graph) for node in graph.node)}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _ends(model: ModelProto) -> tuple[ValueInfoProto, ValueInfoProto]:
    for word, ends in (("input", model.graph.input), ("output", model.graph.output)):
        if len(ends) != 1:
            names = ", ".join(repr(end.name) for end in ends) or "none"
            raise GraphError(f"expected one {word}, found {len(ends)}: {names}; export the classifier alone")
    return model.graph.input[0], model.graph.output[0]


def _check_input(entry: ValueInfoProto, spec: InputSpec) -> None:
    tensor = entry.type.tensor_type
    if tensor.elem_type not in _KINDS:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise GraphError(f"input {entry.name!r} is {kind}; export it with float32, float16 or uint8 images")
    found = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim]
    expected = ["batch", *spec.shape]
    fits = len(found) == 4 and all(isinstance(a, str) or a == b for a, b in zip(found[1:], spec.shape, strict=True))
    if not fits:
        nhwc = len(found) == 4 and found[1:] == [*spec.shape[1:], spec.shape[0]]
        hint = "it is NHWC, so export it as NCHW" if nhwc else "give its real shape with --input CxHxW"
        raise GraphError(f"input {entry.name!r} has shape {found}, the input spec says {expected}; {hint}")


def _check_weights(model: ModelProto) -> None:
    for tensor in (t for graph in all_graphs(model.graph) for t in graph.initializer):
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}:
            values = numpy_helper.to_array(tensor)
            if np.isnan(values).any() or (values.ndim > 1 and np.isinf(values).any()):
                raise GraphError(f"weight {tensor.name!r} holds NaN or infinity; export a model that trained properly")


def _fix_image_size(model: ModelProto, spec: InputSpec) -> None:
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], spec.shape, strict=True):
        dim.dim_value = size


def _read_pixels(model: ModelProto, spec: InputSpec, told: list[str]) -> None:
    """Put in front of a uint8 input what makes pixels of images in [0, 1]."""
    entry = model.graph.input[0]
    if entry.type.tensor_type.elem_type != TensorProto.UINT8:
        return
    if spec.normalises and not (set(spec.mean) <= {0.0} and all(np.isclose(s, 1 / 255) for s in spec.std)):
        raise GraphError(f"input {entry.name!r} takes uint8 pixels and normalises them itself; leave out --mean, --std")
    entry.type.tensor_type.elem_type = TensorProto.FLOAT
    readers = [node for node in model.graph.node if entry.name in node.input]
    casts = [node for node in readers if node.op_type == "Cast" and attributes(node)["to"] == TensorProto.FLOAT]
    if len(casts) == len(readers) and not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        for cast in casts:
            cast.CopyFrom(helper.make_node("Mul", [entry.name, "rctk.255"], cast.output, name="rctk.pixels"))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(255, np.float32), "rctk.255"))
        told.append("the uint8 input takes images in [0, 1], which are not rounded to pixels")
        return
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(1 / 255, np.float32), "rctk.pixel"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.uint8), "rctk.black"))
    insert_behind_input(model, [Step("QuantizeLinear", ["rctk.pixel", "rctk.black"], "rctk.pixels")])
    told.append(f"the uint8 input takes images in [0, 1], {ROUNDED}")


def _normalise(model: ModelProto, spec: InputSpec) -> None:
    pixels = any(node.name == "rctk.pixels" for node in model.graph.node)
    if not spec.normalises or pixels:  # a model that reads pixels scales them itself
        return
    present = leading_normalisation(model)
    if present is not None:
        name = present.name or f"{present.op_type}->{present.output[0]}"
        raise GraphError(
            f"the model already holds normalisation ({present.op_type} node {name!r}) and --mean or --std would add "
            "another; leave --mean and --std out, or export the model without its own"
        )
    mean, std = spec.mean_std()
    steps: list[Step] = []
    for op, value, neutral in (("Sub", mean, 0.0), ("Div", std, 1.0)):
        if (value != neutral).any():
            name = f"rctk.{'mean' if op == 'Sub' else 'std'}"
            model.graph.initializer.append(numpy_helper.from_array(value[np.newaxis], name))
            steps.append(Step(op, [name], f"rctk.{op.lower()}"))
    insert_behind_input(model, steps)


def _finish_output(model: ModelProto) -> None:
    """Require float logits ``(N, K)``; ``(N, K, 1, 1)`` is flattened and float64 is cast."""
    name = model.graph.output[0].name
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0].type.tensor_type
    if inferred.elem_type not in {TensorProto.FLOAT, TensorProto.DOUBLE}:
        kind = TensorProto.DataType.Name(inferred.elem_type)
        raise GraphError(f"output {name!r} is {kind}, expected float logits; export the model before its ArgMax")
    dims = [dim.dim_value for dim in inferred.shape.dim]
    if len(dims) == 4 and dims[2:] == [1, 1]:
        append_behind_output(model, "Flatten", axis=1)
        dims = dims[:2]
    if len(dims) != 2 and inferred.HasField("shape"):
        raise GraphError(f"output {name!r} has shape {dims}, expected (batch, classes); export the classifier alone")
    if inferred.elem_type == TensorProto.DOUBLE:
        append_behind_output(model, "Cast", to=TensorProto.FLOAT)
    classes = dims[1] if len(dims) == 2 and dims[1] > 0 else "classes"
    batch = inferred.shape.dim[0].dim_value or "batch" if inferred.shape.dim else "batch"
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info(model.graph.output[0].name, TensorProto.FLOAT, [batch, classes])
    )


def _tell(model: ModelProto, told: Sequence[str]) -> None:
    others = [p for p in model.metadata_props if p.key != NOTES]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    if told:
        model.metadata_props.add(key=NOTES, value="\n".join(told))


def _checked(model: ModelProto) -> ModelProto:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the ONNX checker refuses the model: {' '.join(str(error).split())[:300]}") from error
    return model
