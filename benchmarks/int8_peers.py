"""Other int8 quantizers and runtimes, each with its best settings; what is not installed is left out by name."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from interleaved import Call

from rctk_export.capture import INPUT
from rctk_export.engine import Source
from rctk_export.engines.onnxruntime import OnnxRuntime
from rctk_export.input_spec import FloatNCHW, InputSpec
from rctk_export.lint.fusion import float_layers, optimised_graph

BATCH = 32
PEERS = {"onnxruntime.quantization": "onnxruntime", "openvino": "openvino", "nncf": "nncf"}


@dataclass(frozen=True, kw_only=True)
class File:
    """A model file that a runtime can time.

    Attributes:
        name: Who quantized it, and how.
        path: ``.onnx``, or ``.xml`` for OpenVINO alone.
        target: Of rctk's file; empty for those of others.
        int8: Quantized.
    """

    name: str
    path: Path
    target: str = ""
    int8: bool = True

    @property
    def size_bytes(self) -> int:
        """Graph and weights; OpenVINO keeps them in two files."""
        weights = self.path.with_suffix(".bin")
        parts = [self.path, weights] if self.path.suffix == ".xml" else [self.path]
        return sum(part.stat().st_size for part in parts)


def missing() -> list[str]:
    """Return the ``pip install`` names of peers that are not installed."""
    return sorted({package for package in PEERS.values() if find_spec(package) is None})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and advice of other tools off the terminal."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def onnxruntime_files(model: onnx.ModelProto, images: FloatNCHW, folder: Path) -> list[File]:
    """Quantize with ``quantize_static``: uint8 activations, int8 weights, min-max, after its own pre-processing."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    variants = {
        "quantize_static QDQ": {"quant_format": QuantFormat.QDQ, "per_channel": True},
        "quantize_static QOperator": {"quant_format": QuantFormat.QOperator, "per_channel": True},
        "quantize_static QDQ per tensor": {"quant_format": QuantFormat.QDQ, "per_channel": False},
    }
    prepared = folder / "prepared.onnx"
    files = []
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        onnx.save(model, Path(scratch) / "float.onnx")
        quant_pre_process(str(Path(scratch) / "float.onnx"), str(prepared))
        for name, settings in variants.items():
            path = folder / f"{name.replace(' ', '-')}.onnx"
            types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            quantize_static(str(prepared), str(path), Reader(), **types, **settings)
            files.append(File(name=name, path=path))
    return files


def nncf_files(path: Path, images: FloatNCHW, folder: Path) -> list[File]:
    """Quantize the float file at ``path`` with NNCF, in both of its presets."""
    with quiet():
        import nncf
        import openvino

        made = []
        for name, preset in (
            ("NNCF", nncf.QuantizationPreset.PERFORMANCE),
            ("NNCF mixed", nncf.QuantizationPreset.MIXED),
        ):
            data = nncf.Dataset([images[i : i + 1] for i in range(len(images))])
            model = openvino.Core().read_model(path)
            out = folder / f"{name.replace(' ', '-')}.xml"
            quantized = nncf.quantize(model, data, subset_size=len(images), preset=preset)
            openvino.save_model(quantized, out, compress_to_fp16=False)
            made.append(File(name=name, path=out))
    return made


@contextlib.contextmanager
def in_onnxruntime(file: File, spec: InputSpec, threads: int) -> Iterator[Call]:
    """Open a file in ONNX Runtime, idle threads sleeping."""
    with OnnxRuntime(threads=threads, spinning=False).open(Source(path=file.path, input=spec)) as engine:
        yield engine.predict


@contextlib.contextmanager
def in_openvino(file: File, spec: InputSpec, threads: int, batch: int) -> Iterator[Call]:
    """Open a file in OpenVINO with a fixed batch, one stream, float32 where it is not int8."""
    from rctk_export.engines.openvino import OpenVINO

    with OpenVINO(threads=threads, batch=batch).open(Source(path=file.path, input=spec)) as engine:
        yield engine.predict


def floats_in_onnxruntime(file: File) -> int:
    """Count the layers that ONNX Runtime runs in float, in its optimised graph."""
    return len(float_layers(optimised_graph(file.path.read_bytes())))


def floats_in_openvino(file: File) -> int:
    """Count the layers that OpenVINO runs in float, in its execution graph."""
    from rctk_export.engines.openvino import runtime_layers

    return sum(not layer.int8 for layer in runtime_layers(file.path))
