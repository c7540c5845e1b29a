"""A module compiled by torch-tensorrt: made, kept, loaded and run."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from onnx import ModelProto

from rctk_export.batching import checked, checked_logits, in_range_batches, one_input_one_output
from rctk_export.engine import Source
from rctk_export.engines.cache import cache_folder, gpu_facts
from rctk_export.engines.torch import end_of
from rctk_export.engines.torch_tensorrt import TorchTensorRT
from rctk_export.engines.torch_tensorrt_capture import LINEARS, Batches, capture, torch_module
from rctk_export.engines.torch_tensorrt_pair import INSTALL
from rctk_export.engines.trt_profile import digest
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.onnx_files import load_onnx
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import EngineError, EngineUnavailableError, GraphError

SAVED, CHECKSUM = "module.ep", "module.sha256"
ENGINE = "_run_on_acc"
"""How torch-tensorrt names the parts that run in TensorRT."""


@final
class TorchTensorRTEngine:
    """A compiled module; see :class:`rctk_export.engine.Engine`. One thread at a time may call ``predict``.

    Args:
        source: The ONNX file.
        settings: How to compile.
        pair: Versions of what belongs together.
    """

    def __init__(self, source: Source, settings: TorchTensorRT, pair: Mapping[str, str]) -> None:
        try:
            model = load_onnx(source.path)
        except GraphError as error:
            raise EngineError(str(error)) from error
        self._spec = source.input
        batch = _batch(model, source)
        sizes = (settings.min_batch, settings.opt_batch, settings.max_batch) if batch is None else (batch,) * 3
        self._batches = Batches(*sizes)
        self._device = gpu(settings.device)
        self._module: Any = self._opened(source, settings, model, pair)

    def __enter__(self) -> TorchTensorRTEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._module = None

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        return in_range_batches(checked(images, self._spec), self._batches.low, self._batches.high, self._run)

    def _run(self, images: FloatNCHW) -> FloatNK:
        if self._module is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        try:
            with torch.no_grad():
                found = self._module(torch.from_numpy(np.array(images)).to(self._device))
            (logits,) = found if isinstance(found, tuple | list) else (found,)
            host = logits.float().cpu().numpy()  # waits for the GPU
        except RuntimeError as error:
            raise EngineError(f"torch-tensorrt failed on a batch of {len(images)}: {_one_line(error)}") from error
        return checked_logits(host, len(images))

    def _opened(self, source: Source, settings: TorchTensorRT, model: ModelProto, pair: Mapping[str, str]) -> Any:
        runtime = _runtime(quantized=any(node.op_type in LINEARS for node in model.graph.node))
        if not settings.cache:
            return self._compiled(runtime, settings, model)
        place = {**pair, **gpu_facts(settings.device)}
        facts: dict[str, str | Mapping[str, str]] = {**place, "file": digest(source), "options": _texts(settings)}
        folder = cache_folder(Path(settings.cache), f"{source.path.stem}-torch", facts)
        if not (folder / CHECKSUM).exists():
            _save(runtime, self._compiled(runtime, settings, model), folder)
        return _load(runtime, folder)

    def _compiled(self, runtime: Any, settings: TorchTensorRT, model: ModelProto) -> Any:
        shape = self._spec.shape
        example = torch.zeros((self._batches.high, *shape))
        module = torch_module(model, example, half=settings.precision_rest == "fp16").to(self._device)
        program = capture(module, example.to(self._device), self._batches)
        low, tuned, high = ((count, *shape) for count in self._batches)
        entry = runtime.Input(min_shape=low, opt_shape=tuned, max_shape=high, dtype=torch.float32)
        build = runtime.dynamo.compile
        options = settings.options(inspect.signature(build).parameters)
        try:
            compiled = build(program, arg_inputs=[entry], device=self._device, **options)
        except Exception as error:  # what its converters and TensorRT raise has no class in common
            raise EngineError(f"torch-tensorrt cannot compile the file: {_one_line(error)}") from error
        refuse_rest(compiled)
        return compiled


def gpu(index: int) -> torch.device:
    """Return that GPU; :class:`EngineUnavailableError` where PyTorch sees fewer."""
    count = torch.cuda.device_count()
    if index >= count:
        raise EngineUnavailableError(
            f"PyTorch {torch.__version__} sees {count} GPUs and no number {index}; install its CUDA build, or choose "
            "with device=0"
        )
    return torch.device("cuda", index)


def refuse_rest(compiled: Any) -> None:
    """Raise :class:`EngineError` with the nodes of a compiled module that PyTorch would run."""
    nodes = list(compiled.graph.nodes)
    engines = [node for node in nodes if node.op == "call_module" and ENGINE in str(node.target)]
    calls = [node for node in nodes if node.op.startswith("call_") and node not in engines]
    rest = [node.name for node in calls if "getitem" not in node.name]
    if rest or not engines:
        left = ", ".join(rest[:5]) or "everything"
        raise EngineError(
            f"torch-tensorrt leaves {left} to PyTorch ({len(rest)} of {len(nodes)} nodes); run the file with "
            "--engine tensorrt or torch"
        )


def _runtime(*, quantized: bool) -> Any:
    """Import torch-tensorrt; for int8 after nvidia-modelopt, whose operator it looks for while it is imported."""
    if quantized:
        _imported("modelopt.torch.quantization", "nvidia-modelopt, which int8 files need,")
    return _imported("torch_tensorrt", "torch-tensorrt")


def _imported(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(f"{title} cannot be imported ({_one_line(error)}); {INSTALL}") from error


def _save(runtime: Any, compiled: Any, folder: Path) -> None:
    """Write the module and then its hash, so that half a module is never loaded."""
    part = folder / f".{SAVED}.{secrets.token_hex(4)}.part"
    try:
        runtime.save(compiled, str(part), output_format="exported_program", retrace=False)
        written = hashlib.sha256(part.read_bytes()).hexdigest()
        part.replace(folder / SAVED)
        write_whole(folder / CHECKSUM, written.encode())
    except OSError as error:
        raise EngineError(f"{folder} cannot be written ({error.strerror}); give another with cache=") from error
    finally:
        part.unlink(missing_ok=True)


def _load(runtime: Any, folder: Path) -> Any:
    path = folder / SAVED
    try:
        expected, found = (folder / CHECKSUM).read_text().strip(), hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}); delete {folder}") from error
    if expected != found:
        raise EngineError(f"{path} is not the module that was written there; delete {folder}")
    try:
        return runtime.load(str(path)).module()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"torch-tensorrt cannot load {path} ({_one_line(error)}); delete {folder}") from error


def _batch(model: ModelProto, source: Source) -> int | None:
    """Return the batch that the graph fixes; :class:`EngineError` unless it is a classifier of float images."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [end_of(value) for value in model.graph.input if value.name not in stored]
    entry, _ = one_input_one_output(source.path.name, inputs, [end_of(v) for v in model.graph.output], source.input)
    if entry.kind != "float32":
        raise EngineError(f"{source.path.name} reads {entry.kind} pixels; torch-tensorrt takes float32 images only")
    return entry.batch


def _texts(settings: TorchTensorRT) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(settings).items() if key not in {"cache", "device"}}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
