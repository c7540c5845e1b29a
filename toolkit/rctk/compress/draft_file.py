"""A draft as a header of JSON values and named tensors, and back to the same bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from rctk.compress.step import Draft
from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Images
from rctk.records import plain
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import parse_onnx, serialize, uses_external_data
from rctk_export.quantize.formats import Formats, Steps, Weight
from rctk_kernels.errors import ModelError, RctkError

GRAPH, SCALES, CODES = "graph", "scales/", "codes/"
"""Names of tensors: the bytes of the graph, and prefixes for layers."""
FORMS = {"static", "dynamic", "weight-only"}


def draft_contents(draft: Draft) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return all of a draft: JSON values, and the tensors that would be clumsy as such."""
    formats = draft.formats
    header = {
        "input": draft.input.as_dict(),
        "form": draft.form,
        "calibrator": draft.calibrator,
        "images": asdict(draft.images),
        "ranges": {name: [float(low), float(high)] for name, (low, high) in draft.ranges.items()},
        "keep_float": list(draft.keep_float),
        "facts": plain(draft.facts, "facts"),
        "formats": {
            "weight_bits": formats.weight_bits,
            "activation_bits": formats.activation_bits,
            "per_channel": formats.per_channel,
            "layer_bits": dict(formats.layer_bits),
            "tensor_bits": dict(formats.tensor_bits),
            "steps": {name: [float(each.scale), each.low, each.high] for name, each in formats.steps.items()},
            "weights": list(formats.weights),
        },
    }
    tensors = {GRAPH: graph_tensor(draft.model)}
    for name, weight in formats.weights.items():
        tensors[SCALES + name] = torch.from_numpy(np.array(weight.scales, dtype=np.float32))
        if weight.codes is not None:
            tensors[CODES + name] = torch.from_numpy(np.array(weight.codes, dtype=np.int8))
    return header, tensors


def draft_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> Draft:
    """Return what :func:`draft_contents` took apart; :class:`ModelError` names ``path`` where something is missing."""
    try:
        formats = dict(header["formats"])
        steps = {name: Steps(scale=scale, low=low, high=high) for name, (scale, low, high) in formats["steps"].items()}
        weights = {name: _weight(name, tensors) for name in formats["weights"]}
        CALIBRATORS.build(header["calibrator"])
        if header["form"] not in FORMS:
            raise ValueError(f"no form {header['form']!r}")  # noqa: TRY301  # one wording for all of them
        return Draft(
            model=graph_of(tensors[GRAPH], path),
            input=InputSpec.from_dict(header["input"]),
            form=header["form"],
            formats=Formats(**{**formats, "steps": steps, "weights": weights}),
            calibrator=header["calibrator"],
            images=Images(**header["images"]),
            ranges={name: (low, high) for name, (low, high) in header["ranges"].items()},
            keep_float=tuple(header["keep_float"]),
            facts=dict(header["facts"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RctkError) as error:
        raise ModelError(f"{path} is a damaged checkpoint ({type(error).__name__}: {error}); make it again") from error


def draft_digest(draft: Draft) -> str:
    """Return a SHA-256 of everything in ``draft``."""
    header, tensors = draft_contents(draft)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def graph_tensor(model: onnx.ModelProto) -> Tensor:
    """Return the bytes of a graph as uint8 ``(bytes,)``."""
    return torch.frombuffer(bytearray(serialize(model)), dtype=torch.uint8)


def graph_of(tensor: Tensor, path: Path) -> onnx.ModelProto:
    """Return the graph in such a tensor, examined as that of a stranger's file is."""
    if tensor.dtype != torch.uint8:
        raise ValueError("its graph is not stored as bytes")
    model = parse_onnx(tensor.numpy().tobytes(), path)
    if uses_external_data(model):
        raise ValueError("its graph has weights in other files")
    return model


def _weight(name: str, tensors: Mapping[str, Tensor]) -> Weight:
    scales, codes = tensors[SCALES + name], tensors.get(CODES + name)
    if scales.dtype != torch.float32 or (codes is not None and codes.dtype != torch.int8):
        raise ValueError(f"scales or codes of {name} have another type")
    return Weight(scales=scales.numpy(), codes=None if codes is None else codes.numpy())
