from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from rctk_export.lint import lint


def found(s, target="openvino"):
    return {(finding.rule, finding.node) for finding in lint(s.model(), target)}


def pair_behind(s, tensor, reader, slot):
    """Put a pair between ``tensor`` and one of its readers."""
    at = s.nodes.index(s.node(reader))
    count = len(s.nodes)
    s.rewire(reader, slot, s.pair(tensor, 0.02, np.uint8(120)))
    s.nodes[at:at] = [s.nodes.pop() for _ in range(len(s.nodes) - count)][::-1]


def relu_between(s):
    s.before("sum", helper.make_node("Relu", ["conv2"], ["half"], name="half"))
    s.rewire("sum", 0, "half")


def test_a_pair_between_convolution_and_add_is_an_error_that_names_the_convolution(sketch):
    s = sketch("openvino")()
    pair_behind(s, "conv2", "sum", 0)
    (finding,) = lint(s.model(), "openvino")
    assert (finding.rule, finding.node, finding.severity) == ("rounded-sum", "sum", "error")
    assert "conv2" in finding.message
    assert "--target openvino" in finding.remedy


def test_a_pair_behind_the_relu_of_such_a_convolution_is_one_too(sketch):
    s = sketch("openvino")()
    relu_between(s)
    assert found(s) == set()
    pair_behind(s, "half", "sum", 0)
    assert ("rounded-sum", "sum") in found(s)


def test_a_convolution_that_reads_what_is_added_to_it_keeps_its_pair(sketch):
    s = sketch("cpu")()
    assert s.node("conv2").input[0] in s.node("sum").input
    assert found(s) == set()


def test_an_output_read_elsewhere_is_rounded(sketch):
    """OpenVINO fuses an add only into a convolution that nothing else reads."""
    s = sketch("openvino")()
    pair_behind(s, "conv2", "sum", 0)
    for tensor in ("conv0.dq", "conv2.dq"):
        s.op("Sigmoid", [tensor], f"{tensor}.too")
    assert found(s) == set()


@pytest.mark.parametrize("skip", ["conv0", "conv2"])
def test_a_convolution_that_ends_in_float_elsewhere_is_named(sketch, skip):
    s = sketch("openvino")()
    s.rewire("sum", 1, skip)  # float plus float, or twice the same
    assert ("surrounded", "conv2") in found(s)


def test_the_cpu_rules_refuse_that_form(sketch):
    assert found(sketch("openvino")(), "cpu") == {("surrounded", "conv2")}
