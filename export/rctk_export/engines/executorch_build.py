"""Make an ExecuTorch program of an ONNX file, with XNNPACK's kernels. On the workstation: torch, onnx and executorch.

XNNPACK multiplies in int8 where images, weights and result of a layer are on int8 grids: the ``cpu`` files. Which
layers do is read back from the XNNPACK graphs inside the program, not from what was asked for.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from onnx import TensorProto

from rctk_export.bundle import file_sha256
from rctk_export.engine import Source
from rctk_export.engines.executorch_program import ProgramLayer, ProgramRecord, record_path
from rctk_export.exportable import ExportableModule
from rctk_export.onnx_files import load_onnx
from rctk_export.quantize_operators import Decomposed
from rctk_export.tensorrt.record import now
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its parts say to each other about their next versions
        from executorch.backends.xnnpack import serialization
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir._serialize._flatbuffer import _flatc_decompile
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.exir.error import ExportError, InternalError
except ImportError as error:
    raise EngineUnavailableError(
        f"making an ExecuTorch program needs ExecuTorch 1.5 ({error}); install it with `pip install "
        "'rctk[host,executorch]'`"
    ) from error

MAX_BATCH = 2**12
XNNPACK = "XnnpackBackend"
INT8 = {"qint8", "qcint8"}
_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, KeyError, ExportError, InternalError)


def build_program(source: Source, out: Path, *, batch: int = 1) -> ProgramRecord:
    """Lower ``source`` to XNNPACK, write the program and its record; an earlier program stays until then.

    Args:
        source: ONNX file: of a bundle, or a bare one.
        out: File for the program; its folder is made.
        batch: Images that every run will take; fewer are filled up, more go through in turns.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise OptionError(f"the batch must be 1 to {MAX_BATCH}, got {batch}; mend --opt-batch")
    content = _lowered(source, batch)
    layers, outside = contents(content)
    record = ProgramRecord(
        program_sha256=hashlib.sha256(content).hexdigest(),
        program_bytes=len(content),
        onnx=source.path.name,
        onnx_sha256=source.sha256 or file_sha256(source.path),
        model_role=source.role,
        input=source.input,
        batch=batch,
        executorch=version("executorch"),
        torch=torch.__version__,
        layers=layers,
        outside=outside,
        created=now(),
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, content)
        write_whole(record_path(out), record.text().encode())  # last: a program without its own record is refused
    except OSError as error:
        raise EngineError(f"cannot write {out}: {error.strerror}; free some space or choose another place") from error
    return record


def _lowered(source: Source, batch: int) -> bytes:
    model = load_onnx(source.path)
    stored = {tensor.name for tensor in model.graph.initializer}
    (entry,) = [value for value in model.graph.input if value.name not in stored]
    pixels = entry.type.tensor_type.elem_type == TensorProto.UINT8
    images = torch.zeros((batch, *source.input.shape), dtype=torch.uint8 if pixels else torch.float32)
    module = ExportableModule(model, images, Decomposed(), whole=True).eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, (images,))
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
    except _FAILURES as error:
        reason = " ".join(str(error).split())[:400]
        raise EngineError(f"ExecuTorch cannot take {source.path.name}: {type(error).__name__}: {reason}") from error


def contents(program: bytes) -> tuple[tuple[ProgramLayer, ...], tuple[str, ...]]:
    """Return the weighted layers that XNNPACK runs, and the operators that run outside of it.

    Args:
        program: A ``.pte`` file.
    """
    read = deserialize_pte_binary(program).program
    layers: list[ProgramLayer] = []
    outside: set[str] = set()
    for plan in read.execution_plan:
        outside.update(operator.name for operator in plan.operators)
        for delegate in plan.delegates:
            if delegate.id != XNNPACK:
                raise EngineError(f"the program holds a part for {delegate.id}, expected {XNNPACK} alone")
            layers += _weighted(_graph(bytes(read.backend_delegate_data[delegate.processed.index].data)))
    return tuple(layers), tuple(sorted(outside))


def _graph(payload: bytes) -> Mapping[str, Any]:
    """Decode what a program hands to XNNPACK, with the schema that ExecuTorch brings along."""
    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    graph = payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size]
    schema = importlib.resources.files(serialization).joinpath("schema.fbs").read_bytes()
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        at = Path(folder)
        (at / "schema.fbs").write_bytes(schema)
        (at / "graph.bin").write_bytes(graph)
        _flatc_decompile(folder, str(at / "schema.fbs"), str(at / "graph.bin"), ["--raw-binary"])
        text = re.sub(rb": -?(inf|nan)\b", b": null", (at / "graph.json").read_bytes())  # bounds; JSON knows no such
    decoded: Mapping[str, Any] = json.loads(text)
    return decoded


def _weighted(graph: Mapping[str, Any]) -> Iterator[ProgramLayer]:
    tensors = {}
    for value in graph["xvalues"]:
        held = value["xvalue_union"]
        tensor = held.get("tensor_value", held)
        tensors[tensor["id_out"]] = tensor
    for node in graph["xnodes"]:
        layer = node["xnode_union"]
        if "filter_id" not in layer:
            continue
        images, weights, result = (tensors[layer[key]] for key in ("input1_id", "filter_id", "output_id"))
        words = [tensor["datatype"].removeprefix("xnn_datatype_") for tensor in (images, weights, result)]
        precision = "qint8" if INT8.issuperset(words) else words[2]
        yield ProgramLayer(node["xnode_union_type"].removeprefix("XNN"), tuple(weights["dims"]), precision)
