"""``quant.layer_bits``: one layer gets a width of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rctk.compress.step import Context, Draft
from rctk.quantize.layers import weight_layers
from rctk_export.quantize.formats import Formats
from rctk_export.registry import unknown
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class LayerBits:
    """Width of the weight codes of one layer, and of the codes of the tensor that it reads.

    Attributes:
        layer: Its name, as ``rctk inspect --layers`` shows it.
        weight_bits: 2 to 8; 0 leaves the width as it is.
        input_bits: Likewise.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "width"
    layer: str
    weight_bits: int = 0
    input_bits: int = 0

    def __post_init__(self) -> None:
        if not (self.weight_bits or self.input_bits):
            raise OptionError(f"quant.layer_bits gives {self.layer} no width; set weight_bits or input_bits")
        for name, bits in (("weight_bits", self.weight_bits), ("input_bits", self.input_bits)):
            if bits:
                Formats(layer_bits={f"quant.layer_bits:{name}": bits})

    def __call__(self, draft: Draft, context: Context) -> Draft:  # noqa: ARG002  # no images are needed
        """See :class:`rctk.compress.step.GraphStep`."""
        layers = {layer.name: layer for layer in weight_layers(draft)}
        if self.layer not in layers:
            raise unknown("layer", self.layer, sorted(layers))
        if self.input_bits and draft.form != "static":
            raise OptionError(f"quant.layer_bits: in a {draft.form} file inputs have no codes; leave input_bits out")
        formats = draft.formats
        if self.weight_bits:
            draft = draft.with_formats(layer_bits={**formats.layer_bits, self.layer: self.weight_bits})
        if self.input_bits:
            draft = draft.with_formats(tensor_bits={**formats.tensor_bits, layers[self.layer].input: self.input_bits})
        noted = dict(draft.facts.get("quant.layer_bits", {}))
        return draft.noted("quant.layer_bits", **noted, **{self.layer: [self.weight_bits, self.input_bits]})
