"""``rctk inspect --engine onnxruntime``: which provider runs which nodes."""

from __future__ import annotations

import json

import onnx
import pytest

from rctk_export.engines.onnxruntime import OnnxRuntimeEngine

CPU = "CPUExecutionProvider"


def test_the_cpu_engine_runs_all_nodes_of_a_bundle_on_the_cpu(rctk, bundle):
    done = rctk("inspect", bundle, "--engine", "onnxruntime", "--target", "cpu")
    assert done.code == 0, done.err
    (found,) = json.loads(rctk("inspect", bundle, "--engine", "onnxruntime", "--json").out)
    assert set(found["nodes"]) == {CPU}
    assert f"{len(found['nodes'][CPU])} nodes, 100.0% {CPU}" in done.out


def test_every_node_of_a_bare_file_is_listed_on_request(rctk, float_onnx):
    done = rctk("inspect", float_onnx, "--engine", "onnxruntime:optimize=false", "--layers")
    assert done.code == 0, done.err
    for node in onnx.load(float_onnx).graph.node:
        assert f"({node.op_type})" in done.out


def test_nodes_elsewhere_are_shares_and_unknown_ones_are_said(rctk, bundle, monkeypatch):
    shared = {"CUDAExecutionProvider": ("a (Conv)", "b (Relu)", "c (Gemm)"), CPU: ("d (Shape)",)}
    monkeypatch.setattr(OnnxRuntimeEngine, "nodes", lambda engine: shared)
    done = rctk("inspect", bundle, "--engine", "onnxruntime", "--target", "cpu")
    assert f"4 nodes, 75.0% CUDAExecutionProvider, 25.0% {CPU}" in done.out
    monkeypatch.setattr(OnnxRuntimeEngine, "nodes", lambda engine: {})
    assert "nodes not known" in rctk("inspect", bundle, "--engine", "onnxruntime", "--target", "cpu").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "onnxruntime:provider=cuda"), "--engine onnxruntime-cuda"),
        (("--engine", "onnxruntime", "--target", "cpuu"), "cpuu"),
    ],
)
def test_what_does_not_fit_is_one_line(rctk, bundle, arguments, words):
    done = rctk("inspect", bundle, *arguments)
    assert done.code == 2
    assert words in done.err


def test_files_that_hold_no_images_are_refused(rctk, tmp_path, float_onnx):
    (tmp_path / "net.xml").write_text("<net/>")
    for path, more, words in (
        (tmp_path / "net.xml", (), "bundles and .onnx files"),
        (float_onnx, ("--target", "cpu"), "is a bare file"),
    ):
        done = rctk("inspect", path, "--engine", "onnxruntime", *more)
        assert done.code == 2
        assert words in done.err.replace("\n", " ")
    model = onnx.load(float_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, tmp_path / "open.onnx")
    done = rctk("inspect", tmp_path / "open.onnx", "--engine", "onnxruntime")
    assert done.code == 2
    assert "how large its images are" in done.err
