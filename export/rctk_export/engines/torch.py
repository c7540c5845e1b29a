"""The float ONNX file in PyTorch: the model that everybody evaluates, as a differentiable module and as an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from onnx import TensorProto, ValueInfoProto

from rctk_export.batching import End, checked, checked_logits, one_input_one_output, pixels
from rctk_export.engine import Source
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.onnx_files import load_onnx
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import EngineError, EngineUnavailableError, GraphError, OptionError


@dataclass(frozen=True, kw_only=True)
class Torch:
    """Runs an ONNX file as a float32 torch module.

    Attributes:
        threads: Threads of one operator during ``predict``; 0 leaves PyTorch's setting.
        device: Where it runs, such as ``cpu`` or ``cuda:0``; never replaced by another.
    """

    threads: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"threads must be 0 (PyTorch's setting) or more, got {self.threads}")

    def open(self, source: Source) -> ModuleEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineUnavailableError` where the device is missing."""
        return ModuleEngine(source, device=self.device, threads=self.threads)


@final
class ModuleEngine:
    """An :class:`OnnxModule` as an engine; see :class:`rctk_export.engine.Engine`."""

    def __init__(
        self,
        source: Source,
        *,
        device: str = "cpu",
        threads: int = 0,
        mode: Literal["fast", "exact"] = "fast",
        ste: Literal["clipped", "identity"] = "clipped",
    ) -> None:
        self._spec, self._threads, self._device = source.input, threads, available(device)
        try:
            model = load_onnx(source.path)
        except GraphError as error:
            raise EngineError(str(error)) from error
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = [end_of(value) for value in model.graph.input if value.name not in stored]
        entry, _ = one_input_one_output(source.path.name, inputs, [end_of(v) for v in model.graph.output], source.input)
        self._feeds_pixels = entry.kind == "uint8"
        module = OnnxModule(model, mode=mode, ste=ste).to(self._device).eval()
        self._module: OnnxModule | None = module.requires_grad_(requires_grad=False)

    def __enter__(self) -> ModuleEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._module = None

    @property
    def module(self) -> OnnxModule:
        """The module itself, for white-box attacks: images in, logits out; only images get gradients."""
        if self._module is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        return self._module

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images = checked(images, self._spec)
        feed = torch.from_numpy(
            pixels(images) if self._feeds_pixels else np.array(images)
        )  # the caller keeps its array
        module = self.module
        try:
            with _threads(self._threads), torch.inference_mode():
                logits = module(feed.to(self._device))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:400]
            raise EngineError(f"PyTorch failed on a batch of {len(images)}: {reason}") from error
        return checked_logits(logits.cpu().numpy(), len(images))


def available(name: str) -> torch.device:
    """Return the device called ``name``; :class:`EngineUnavailableError` if this PyTorch or machine lacks it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"unknown device {name!r}; write cpu, cuda or cuda:1") from error
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise EngineUnavailableError(
            f"device {name!r} is not here (PyTorch {torch.__version__}); use device=cpu, or install "
            "the build of PyTorch that https://pytorch.org names for your device with `pip install torch`"
        ) from error
    return device


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use ``count`` threads within the block; 0 changes nothing."""
    before = torch.get_num_threads()
    if count in {0, before}:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def end_of(value: ValueInfoProto) -> End:
    """Describe an input or output of an ONNX graph."""
    tensor = value.type.tensor_type
    word = TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    kind = "float32" if word == "float" else word
    return End(value.name, kind, sizes if tensor.HasField("shape") else None)
