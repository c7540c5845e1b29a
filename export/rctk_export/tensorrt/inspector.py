"""What an engine became, read from the inspector's JSON: which layers run in int8, which stayed float, and why.

Forms read (facts of TensorRT 8.6 to 11.3): each layer is an object with ``Name``, ``LayerType``, ``Inputs`` and
``Outputs``; a tensor has one field that names format and type together (``Format/Datatype``) up to 10.x, and fields of
its own from 11.0, where ``Bindings`` also became ``I/O Tensors``. Without detailed verbosity a layer is its name only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rctk_kernels.errors import EngineError

Arithmetic = Literal["int8", "float", "hidden", "missing"]
MOSTLY = 0.5
"""Least share of the quantized layers that an engine called int8 runs in int8."""
_KINDS = (
    ("int8", r"\bint8\b|\bi8\b"),
    ("bf16", r"\bbf16\b|\bbfloat16\b"),
    ("fp16", r"\bfp16\b|\bhalf\b|\bfloat16\b"),
    ("fp8", r"\bfp8\b|\be4m3"),
    ("fp32", r"\bfp32\b|\bfloat\b|\bfloat32\b"),
    ("int32", r"\bint32\b"),
)
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class EngineLayer:
    """One layer of a built engine.

    Attributes:
        name: TensorRT's, made of the names of what was fused.
        kind: Its ``LayerType``.
        inputs: Data types of what goes in, such as ``int8``; empty text where unknown.
        outputs: Data types of what comes out.
        tactic: Kernel that runs it.
        onnx: ONNX nodes it was made of, where the engine says so.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tactic: str = ""
    onnx: tuple[str, ...] = ()

    @property
    def reformat(self) -> bool:
        """Whether it only changes format or type."""
        return "reformat" in self.kind.lower() or "reformatting copynode" in self.name.lower()

    @property
    def opaque(self) -> bool:
        """Whether it is a block whose inside the inspector does not show."""
        return "foreignnode" in self.name.lower() or self.kind.lower() in {"myelin", "dla"}

    def holds(self, node: str) -> bool:
        """Return whether the ONNX node of that name became part of this layer."""
        if self.onnx:
            return node in self.onnx
        return re.search(rf"(?<![\w/.]){re.escape(node)}(?![\w/.])", self.name) is not None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """How one weighted layer of the file runs.

    Attributes:
        name: In the ONNX file.
        arithmetic: ``hidden`` inside a block that shows nothing, ``missing`` where no layer of the engine names it.
        cause: Why it does not run in int8; empty where it does, or nobody can tell.
        tactic: Kernel.
    """

    name: str
    arithmetic: Arithmetic
    cause: str = ""
    tactic: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """An engine as its inspector shows it.

    Attributes:
        layers: Number of all its layers.
        reformats: Layers that only change format or type.
        placed: The weighted layers of the file.
        quantized: How many of them have Q/DQ on both inputs in the file.
        on_dla: Blocks that run on DLA.
    """

    layers: int
    reformats: int
    placed: tuple[Placed, ...]
    quantized: int
    on_dla: int = 0

    def count(self, arithmetic: Arithmetic) -> int:
        """Return how many weighted layers run that way."""
        return sum(place.arithmetic == arithmetic for place in self.placed)

    @property
    def warning(self) -> str:
        """What is wrong with an engine that was meant to run in int8; empty where nothing is, or none was meant."""
        int8, unseen = self.count("int8"), self.count("hidden") + self.count("missing")
        if not self.quantized or int8 >= MOSTLY * self.quantized:
            return ""
        if int8 + unseen >= MOSTLY * self.quantized:
            return f"{unseen} of {self.quantized} quantized layers are inside blocks that the inspector does not show"
        return (
            f"only {int8} of {self.quantized} quantized layers run in int8: this engine mostly runs in float; the "
            "causes stand beside the layers, `rctk inspect` on the bundle shows rules of its file that are broken"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineReport:
        """Read what :meth:`as_dict` wrote."""
        return cls(**{**values, "placed": tuple(Placed(**place) for place in values["placed"])})


def read_layers(text: str) -> list[EngineLayer]:
    """Read the inspector's JSON; :class:`EngineError` where it is none, or shows no types."""
    try:
        values = json.loads(text)
        layers = values["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the engine inspector gave no JSON with layers ({error!r:.100}); build the plan again"
        ) from error
    if layers and all(isinstance(layer, str) for layer in layers):
        raise EngineError(
            "the engine was built without detailed verbosity, its inspector shows names; build it with `rctk build`"
        )
    return [_layer(layer) for layer in layers if isinstance(layer, dict)]


def _layer(values: Mapping[str, Any]) -> EngineLayer:
    return EngineLayer(
        name=str(values.get("Name", "")),
        kind=str(values.get("LayerType", values.get("Type", ""))),
        inputs=_types(values.get("Inputs")),
        outputs=_types(values.get("Outputs")),
        tactic=str(values.get("TacticName", values.get("Tactic", ""))),
        onnx=tuple(_METADATA.findall(str(values.get("Metadata", "")))),
    )


def _types(tensors: Any) -> tuple[str, ...]:
    return tuple(_type(tensor) for tensor in tensors if isinstance(tensor, dict)) if isinstance(tensors, list) else ()


def _type(tensor: Mapping[str, Any]) -> str:
    """Return the data type of a tensor: its own field from 11, otherwise a word in the description of its format."""
    fields = {re.sub(r"[^a-z]", "", key.lower()): str(value).lower() for key, value in tensor.items()}
    text = fields.get("datatype") or fields.get("formatdatatype") or fields.get("format", "")
    return next((name for name, pattern in _KINDS if re.search(pattern, text.replace("_", " "))), "")


def report(layers: Sequence[EngineLayer], expected: Iterable[Any]) -> EngineReport:
    """Say how the weighted layers of the file run in the engine.

    Args:
        layers: Of the engine.
        expected: :class:`~rctk_export.tensorrt.expected.Expected` for each weighted layer of the network.
    """
    wanted = list(expected)
    return EngineReport(
        layers=len(layers),
        reformats=sum(layer.reformat for layer in layers),
        placed=tuple(_place(layers, layer) for layer in wanted),
        quantized=sum(not layer.cause for layer in wanted),
        on_dla=sum(layer.kind.lower() == "dla" for layer in layers),
    )


def _place(layers: Sequence[EngineLayer], expected: Any) -> Placed:
    found = [layer for layer in layers if not layer.reformat and layer.holds(expected.name)]
    shown = [layer for layer in found if not layer.opaque and any(layer.inputs)]
    if not shown:
        hidden = bool(found) or any(layer.opaque for layer in layers)
        return Placed(name=expected.name, arithmetic="hidden" if hidden else "missing", cause=expected.cause)
    int8 = next((layer for layer in shown if layer.inputs[0] == "int8"), None)
    if int8 is not None:
        return Placed(name=expected.name, arithmetic="int8", tactic=int8.tactic)
    kinds = ", ".join(dict.fromkeys(kind for layer in shown for kind in layer.inputs if kind))
    pairs = " and ".join(map(repr, expected.quantizers))
    cause = expected.cause or f"quantized by {pairs}, which did not fuse with it; it computes in {kinds}"
    return Placed(name=expected.name, arithmetic="float", cause=cause, tactic=shown[-1].tactic)
