"""The reference engine: an ONNX classifier interpreted in NumPy, slow and exact. It defines what an int8 file means.

The arithmetic, which the twin's exact mode repeats code for code:

1. A value is either *real* (float64) or *codes*: integers with scales, zero points and perhaps an axis. The float32
   image enters as float64, float32 constants are converted to float64. Shape arithmetic is done in integers.
2. QuantizeLinear: ``codes = clip(rint(real / scale) + zero, low, high)`` in float64 with ties to even; ``low`` and
   ``high`` are those of the zero point's type. Codes that enter it are taken at their real value.
3. DequantizeLinear keeps codes as codes. Their real value is ``(q - zero) * scale`` in float64.
4. Conv, Gemm and MatMul of two codes: the exact integer sum of ``(qx - zx) * (qw - zw)``, times ``scale_x * scale_w``
   (this product first, in float64), per output channel; then plus the bias at its real value. If either operand is
   real, or a scale varies along what is summed, all is float64 arithmetic. Padding is real 0, that is code ``zx``.
5. What only moves or selects values passes codes through: Concat (of equal grids), Dropout, Flatten, Gather, Identity,
   MaxPool, Pad (with real 0, or copies), Reshape, Slice, Squeeze, Transpose, Unsqueeze. Codes whose scales vary along
   an axis stay codes only through Identity, Dropout and Transpose.
6. AveragePool, GlobalAveragePool and ReduceMean of codes: the integer sum of ``q - zero``, times the scale, divided by
   the count. Of reals: the float64 sum divided by the count.
7. Every other operator takes real values and computes in float64. Logits leave as float32.

Limits: operators over images (Conv, pooling, GridSample) are two-dimensional; opsets before 13 go through ONNX's
converter first; scales and zero points must be constants; a Cast to float16 changes nothing. NaN cannot be quantized
and is refused where it is met.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from rctk_export.batching import End, checked, checked_logits, in_fixed_batches, one_input_one_output, pixels
from rctk_export.engine import Source
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, EngineUnavailableError, GraphError

try:
    from onnx import TensorProto, ValueInfoProto

    from rctk_export.onnx_files import load_onnx
    from rctk_export.reference.program import Program
    from rctk_export.reference.values import Coded, Value, plain
except ImportError as error:
    raise EngineUnavailableError(
        "the reference engine needs the package onnx; install it with `pip install 'rctk[host]'`"
    ) from error


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Interprets an ONNX file with the arithmetic that defines it; has no settings."""

    def open(self, source: Source) -> ReferenceEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.UnsupportedOperatorError` names an operator it lacks."""
        return ReferenceEngine(source)


@final
class ReferenceEngine:
    """A loaded ONNX file; see :class:`rctk_export.engine.Engine`. Memory grows with the batch."""

    def __init__(self, source: Source) -> None:
        try:
            model = load_onnx(source.path)
        except GraphError as error:
            raise EngineError(str(error)) from error
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = [_end(value) for value in model.graph.input if value.name not in stored]
        outputs = [_end(value) for value in model.graph.output]
        self._input, self._output = one_input_one_output(source.path.name, inputs, outputs, source.input)
        self._spec = source.input
        self._program: Program | None = Program(model)

    def __enter__(self) -> ReferenceEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._program = None

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images, batch = checked(images, self._spec), self._input.batch
        if len(images) == 0:
            return self._classify(np.zeros((batch or 1, *self._spec.shape), dtype=np.float32))[:0].copy()
        if batch is None or batch == len(images):
            return self._classify(images)
        return in_fixed_batches(images, batch, self._classify)

    def run(self, images: FloatNCHW, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
        """Return tensors of the graph by name: integer codes on both sides of a DequantizeLinear, else float64.

        Args:
            images: As in :meth:`predict`, at least one; exactly the graph's batch if that is fixed.
            names: Of any tensors, constants included.
        """
        values = self._values(checked(images, self._spec), names)
        return {name: value.codes if isinstance(value, Coded) else value for name, value in values.items()}

    def _classify(self, images: FloatNCHW) -> FloatNK:
        logits = self._values(images, [self._output.name])[self._output.name]
        return checked_logits(plain(logits), len(images))

    def _values(self, images: FloatNCHW, names: Collection[str]) -> dict[str, Value]:
        if self._program is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        feed = pixels(images) if self._input.kind == "uint8" else images.astype(np.float64)
        return self._program.run({self._input.name: feed}, names)


def _end(value: ValueInfoProto) -> End:
    tensor = value.type.tensor_type
    word = TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = "float32" if tensor.elem_type == TensorProto.FLOAT else word
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return End(value.name, kind, tuple(shape) if tensor.HasField("shape") else None)
