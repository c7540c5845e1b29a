"""An average pool whose last windows hang over the edge is written so that every runtime divides by the same number.

``ceil_mode`` makes windows that end behind the stated padding; what lies there never counts. ONNX Runtime's int8 kernel
(1.31) counts it all the same where ``count_include_pad`` is set, and divides by the full window.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from rctk_export.graph import Graph, attributes, set_attribute
from rctk_export.shapes import shapes


def uncount_overhang(graph: Graph) -> None:
    """Give such pools ``count_include_pad`` 0: what is padded and counts becomes a ``Pad`` with zeros in front."""
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "AveragePool"]:
        settings = attributes(node)
        if not (settings.get("ceil_mode", 0) and settings.get("count_include_pad", 0)):
            continue
        pads = list(settings.get("pads", []))
        sides = known.get(node.input[0], ())[2:]
        if not any(pads):
            set_attribute(node, "count_include_pad", 0)
        elif sides and all(isinstance(side, int) for side in sides):
            _pad_in_front(graph, node, pads, [int(side) for side in sides])


def _pad_in_front(graph: Graph, node: NodeProto, pads: list[int], sides: list[int]) -> None:
    settings, axes = attributes(node), len(sides)
    strides = settings.get("strides", [1] * axes)
    dilations = settings.get("dilations", [1] * axes)
    over = []
    for i, (side, stride) in enumerate(zip(sides, strides, strict=True)):
        reach, length = dilations[i] * (settings["kernel_shape"][i] - 1) + 1, side + pads[i] + pads[axes + i]
        count = -((reach - length) // stride) + 1  # rounded up
        count -= (count - 1) * stride >= side + pads[i]  # a window must begin inside the image or before it
        over.append(max((count - 1) * stride + reach - length, 0))
    out = graph.fresh(f"{node.output[0]}.padded")
    whole = np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]], dtype=np.int64)
    sizes = graph.add_constant(f"{out}.pads", whole)
    graph.insert_before(node, [helper.make_node("Pad", [node.input[0], sizes], [out], name=out)])
    node.input[0] = out
    for name, value in (("pads", [0] * axes + over), ("ceil_mode", 0), ("count_include_pad", 0)):
        set_attribute(node, name, value)
