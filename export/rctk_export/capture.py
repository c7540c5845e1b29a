"""A torch module becomes a float ONNX graph: images in [0, 1] in, logits out, normalisation inside."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rctk_export.input_spec import FloatNCHW, FloatNK, InputSpec
from rctk_export.simplify import simplify
from rctk_kernels.errors import GraphError, MismatchError, ModelError

OPSET = 20
INPUT, OUTPUT = "images", "logits"
MAX_BATCH = 65536


class Normalised(nn.Module):
    """``module`` behind ``(image - mean) / std``: images in [0, 1] in, logits out."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.module = module
        self.normalises = spec.normalises
        mean, std = spec.mean_std()
        self.register_buffer("mean", torch.from_numpy(mean.copy()))
        self.register_buffer("std", torch.from_numpy(std.copy()))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, K)`` of images ``(N, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.module((images - self.mean) / self.std if self.normalises else images)
        return logits


def capture(module: nn.Module, spec: InputSpec) -> onnx.ModelProto:
    """Export ``module`` (normalised images to logits) and clean the graph up.

    Args:
        module: In evaluation mode, float32, on the CPU; the module of an exported program works too.
        spec: Its input; normalisation becomes the first nodes of the graph.

    Returns:
        A checked model of opset 20 with input ``images`` ``(batch, C, H, W)`` and output ``logits`` ``(batch, K)``.

    Raises:
        ModelError: ``torch.export`` cannot trace the module; the message names the construct.
        MismatchError: The graph and the module disagree.
    """
    wrapped = Normalised(module, spec)
    example = torch.rand((2, *spec.shape), generator=torch.Generator().manual_seed(0))
    model = simplify(_export(wrapped, example))
    strip_module_names(model)
    opset = {i.domain: i.version for i in model.opset_import}
    if opset.get("") != OPSET:
        raise ModelError(f"asked for ONNX opset {OPSET} and got {opset}; update torch and onnxscript")
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        compare_outputs(model, example.numpy(), wrapped(example).numpy())
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about optional packages, its own deprecated calls and a graph it gives up."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _export(module: nn.Module, example: Tensor) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                verbose=False,
                optimize=True,
            )
    except Exception as error:  # torch.export raises dozens of classes, all meaning "this module cannot be captured"
        raise ModelError(_reason(error)) from error
    assert program is not None
    model = program.model_proto
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        names = [o.name for o in model.graph.output]
        raise ModelError(f"the model returns {len(names)} outputs {names}; rctk needs one, the logits: wrap the module")
    if not size.dim_param:
        raise ModelError(
            "torch.export fixed the batch size: forward() uses a literal batch such as view(1, -1); write x.flatten(1)"
        )
    return model


def _reason(error: BaseException) -> str:
    """Name the construct that stopped the export, on one line, with a remedy."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    text = " ".join(str(deepest).split())
    user = re.search(r'File "([^"]+)", line (\d+), in [a-z_]\w*\n +(.+)', str(error))
    where = f" at {user[1].rsplit('/', 1)[-1]}:{user[2]} `{user[3].strip()[:80]}`" if user else ""
    unknown = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    if unknown:
        return f"ONNX has no operator for torch's {unknown[1]}{where}; use another in forward(), or pass an ONNX file"
    remedy = (
        "remove data-dependent Python control flow from forward() (torch.where or torch.cond), or pass an ONNX file"
    )
    if "Constraints violated" in text or "batch" in text:
        remedy = "do not fix the batch size in forward(): use x.flatten(1) or x.size(0)"
    reason = re.split(r"[. ]*(?:\((?:unhinted|Size-like)|Caused by|For more|consider using)", text)[0][:300]
    return f"torch.export cannot trace the model{where}: {type(deepest).__name__}: {reason}; {remedy}"


def strip_module_names(model: onnx.ModelProto) -> None:
    """Take the wrapper's ``module.`` off all names, and drop exporter notes (they hold paths of the user's machine)."""
    graph = model.graph

    def short(name: str) -> str:
        return name.removeprefix("module.")

    for node in graph.node:
        node.name = short(node.name)
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for info in (*graph.input, *graph.output):
        del info.metadata_props[:]
    del graph.metadata_props[:], model.metadata_props[:]
    model.producer_name, model.producer_version = "rctk", ""


def run_onnx(model: onnx.ModelProto, images: FloatNCHW) -> FloatNK:
    """Return the logits of ``model`` in ONNX Runtime, one thread."""
    import onnxruntime as ort  # noqa: PLC0415  # exports only; loading a module must not load a runtime

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {INPUT: images})
    except Exception as error:  # ONNX Runtime's exceptions have no class of their own
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime cannot run the model: {reason}; export it with standard operators") from error
    return cast("FloatNK", logits)


def compare_outputs(model: onnx.ModelProto, images: FloatNCHW, expected: FloatNK) -> None:
    """Run ``model`` in ONNX Runtime and raise :class:`MismatchError` where it is not ``expected``, ``(N, K)``.

    The tolerance is 1e-3 of the largest logit: float32 sums in another order.
    """
    found = run_onnx(model, images)
    if found.shape != expected.shape:
        raise MismatchError(f"the ONNX graph returns {found.shape} and the module {expected.shape}; report this model")
    scale = max(1e-6, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max())
    if not np.isfinite(found).all() or difference > 1e-3 * scale:
        raise MismatchError(
            f"float ONNX and torch differ by {difference:.3g} where logits reach {scale:.3g}; "
            "does forward() use random numbers or a mode that eval() does not switch off?"
        )
