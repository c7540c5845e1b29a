"""The float end of an export: a torch file or an ONNX file becomes one clean float graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rctk.blame import blame
from rctk.checkpoint import LoadedModel, load_model
from rctk_export.capture import capture, compare_outputs, run_onnx
from rctk_export.input_spec import InputSpec
from rctk_export.intake import output_classes, prepare, strip_softmax
from rctk_export.onnx_files import file_sha256, load_onnx
from rctk_export.simplify import simplify
from rctk_kernels.errors import GraphError, OptionError


@dataclass(frozen=True, kw_only=True)
class FloatModel:
    """A float classifier graph: images in [0, 1] in, logits out.

    Attributes:
        model: Simplified ONNX graph with normalisation inside and a dynamic batch.
        input: Shape of its images, and the normalisation that is now in the graph.
        classes: One name per logit.
        origin: File name, hash, architecture and form, for the manifest.
    """

    model: onnx.ModelProto
    input: InputSpec
    classes: tuple[str, ...]
    origin: dict[str, Any] = field(default_factory=dict)


def read_float_model(
    path: Path,
    *,
    arch: str | None = None,
    input: InputSpec | None = None,  # noqa: A002  # the word of the field and the flag
    classes: int | None = None,
    trust_pickle: bool = False,
) -> FloatModel:
    """Read ``path`` in any form that :func:`rctk.checkpoint.load_model` knows, or as a float ``.onnx``.

    Args:
        path: The model file.
        arch: Architecture of a bare state dict.
        input: Input spec, where the file does not carry it.
        classes: Number of classes, where the architecture needs it.
        trust_pickle: Run a pickled module.

    Raises:
        ModelError: The file is no model, or cannot be captured.
        GraphError: The ONNX graph is not a classifier of one image input and one output.
    """
    if path.suffix == ".onnx":
        return _from_onnx(path, input)
    return captured(load_model(path, arch=arch, input=input, classes=classes, trust_pickle=trust_pickle))


def captured(model: LoadedModel) -> FloatModel:
    """Return the graph of a torch model; :class:`ModelError` where it cannot be captured."""
    return FloatModel(
        model=capture(model.module, model.input),
        input=model.input,
        classes=model.classes,
        origin={"source": Path(model.source).name, "sha256": model.sha256, "arch": model.arch, "form": model.form},
    )


def _from_onnx(path: Path, spec: InputSpec | None) -> FloatModel:
    if spec is None:
        raise OptionError(f"{path.name} does not say how its images look; add --input 3x32x32 (and --mean, --std)")
    raw = load_onnx(path)
    if any(node.op_type in {"QuantizeLinear", "QLinearConv", "ConvInteger"} for node in raw.graph.node):
        raise OptionError(
            f"{path.name} is quantized already; attack, bench or compare it as it is, or export its float parent"
        )
    with blame(path):
        prepared = strip_softmax(prepare(raw, spec))
        _check_batch(prepared)
        model = simplify(prepared)
        images = np.random.default_rng(0).random((2, *spec.shape), dtype=np.float32)
        compare_outputs(model, images, run_onnx(prepared, images))
        count = output_classes(model, images)
    return FloatModel(
        model=model,
        input=spec,
        classes=tuple(str(i) for i in range(count)),
        origin={"source": path.name, "sha256": file_sha256(path), "arch": "", "form": "onnx"},
    )


def _check_batch(model: onnx.ModelProto) -> None:
    """Refuse a graph whose batch size could not be freed: calibration and deployment use several."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not size.dim_param:
        raise GraphError(f"it works for batches of {size.dim_value} only; export the model with a dynamic batch axis")
