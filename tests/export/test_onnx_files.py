from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.onnx_files import all_tensors, file_sha256, load_onnx, save_onnx, serialize, uses_external_data
from rctk_kernels.errors import GraphError


def linear(extra=(), nodes=()):
    """Two inputs to three logits."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [weight, *extra],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def external(tmp_path, location="w.bin", data=None, **entries):
    """Write a model whose weight lives in another file; return its path."""
    model = linear()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data if data is None else data
    onnx.external_data_helper.set_external_data(tensor, location=location, **entries)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(content)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_what_was_saved_comes_back(tmp_path):
    digest = save_onnx(linear(), tmp_path / "m.onnx")
    assert load_onnx(tmp_path / "m.onnx") == linear()
    assert digest == file_sha256(tmp_path / "m.onnx") == hashlib.sha256(serialize(linear())).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\x80\x04not a model", "not an ONNX model"), (b"<html>", "n(ot an|o) ONNX")],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=message):
        load_onnx(tmp_path / "m.onnx")


def test_missing_file_and_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(GraphError, match="there is no ONNX file"):
            load_onnx(path)


def test_every_cut_of_a_file_is_refused(tmp_path):
    content = serialize(linear())
    for length in range(1, len(content)):
        (tmp_path / "m.onnx").write_bytes(content[:length])
        try:
            model = load_onnx(tmp_path / "m.onnx")
        except GraphError:
            continue
        # a cut behind the whole graph loses only the last fields, and then the opset is one of them or all is there
        assert model.graph == linear().graph
        assert list(model.opset_import)


def test_a_model_without_nodes_is_refused(tmp_path):
    model = linear()
    del model.graph.node[:]
    save_onnx(model, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="no ONNX graph"):
        load_onnx(tmp_path / "m.onnx")


def test_size_limit_is_kept(tmp_path):
    save_onnx(linear(), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="more than the 100"):
        load_onnx(tmp_path / "m.onnx", max_bytes=100)


def test_external_data_beside_the_model_is_loaded_into_memory(tmp_path):
    model = load_onnx(external(tmp_path))
    assert model == linear()
    assert not uses_external_data(model)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "..\\w.bin", "C:\\w.bin", "C:w", ""]
)
def test_external_data_may_not_leave_the_folder(tmp_path, location):
    with pytest.raises(GraphError, match="outside the model's own folder"):
        load_onnx(external(tmp_path, location))


def test_external_data_may_not_be_a_link(tmp_path):
    path = external(tmp_path)
    (path.parent / "w.bin").unlink()
    (tmp_path / "secret").write_bytes(b"0" * 24)
    (path.parent / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(GraphError, match="is a link"):
        load_onnx(path)


def test_a_linked_folder_of_the_model_itself_is_fine(tmp_path):
    path = external(tmp_path)
    (tmp_path / "link").symlink_to(path.parent)
    assert load_onnx(tmp_path / "link" / "m.onnx") == linear()


def test_missing_or_short_external_data_is_named(tmp_path):
    path = external(tmp_path, data=b"0" * 23)
    with pytest.raises(GraphError, match=r"wants bytes 0 to 24 of w\.bin, which has 23"):
        load_onnx(path)
    (path.parent / "w.bin").unlink()
    with pytest.raises(GraphError, match="there is no such file"):
        load_onnx(path)


@pytest.mark.parametrize("entries", [{"offset": 4}, {"length": 20}, {"offset": -4}])
def test_offsets_outside_the_data_are_refused(tmp_path, entries):
    with pytest.raises(GraphError, match=r"wants bytes|unreadable"):
        load_onnx(external(tmp_path, **entries))


def test_external_bytes_count_towards_the_limit(tmp_path):
    path = external(tmp_path)
    size = path.stat().st_size
    load_onnx(path, max_bytes=size + 24)
    with pytest.raises(GraphError, match="larger than rctk reads"):
        load_onnx(path, max_bytes=size + 23)


def test_a_declared_shape_larger_than_its_bytes_is_refused(tmp_path):
    bomb = numpy_helper.from_array(np.zeros(4, np.float32), "bomb")
    bomb.dims[:] = [2**20, 2**20]
    save_onnx(linear([bomb]), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match=r"'bomb'.*declares 4398046511104 bytes and holds 16"):
        load_onnx(tmp_path / "m.onnx")


def test_a_negative_size_is_refused(tmp_path):
    bomb = numpy_helper.from_array(np.zeros(1, np.float32), "bomb")
    bomb.dims[:] = [-1, -1]
    save_onnx(linear([bomb]), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="negative size"):
        load_onnx(tmp_path / "m.onnx")


def test_typed_fields_of_every_kind_are_measured(tmp_path):
    good = [
        helper.make_tensor("f", TensorProto.FLOAT, [3], [1, 2, 3]),
        helper.make_tensor("h", TensorProto.FLOAT16, [3], [1, 2, 3]),
        helper.make_tensor("i4", TensorProto.INT4, [3], [1, 2, 3]),
        helper.make_tensor("c", TensorProto.COMPLEX64, [2], [1, 2j]),
        helper.make_tensor("s", TensorProto.STRING, [2], ["a", "b"]),
        helper.make_tensor("none", TensorProto.FLOAT, [0, 4], []),
        numpy_helper.from_array(np.zeros((0, 2), np.int64), "empty"),
    ]
    save_onnx(linear(good), tmp_path / "m.onnx")
    assert len(list(all_tensors(load_onnx(tmp_path / "m.onnx")))) == 8
    short = helper.make_tensor("short", TensorProto.FLOAT, [3], [1, 2, 3])
    short.dims[:] = [4]
    save_onnx(linear([short]), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="declares 4 values and holds 3"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand"])
def test_a_short_shape_that_makes_a_huge_tensor_is_refused(tmp_path, kind):
    shape = numpy_helper.from_array(np.array([2**15, 2**15]), "shape")
    inputs = ["shape"] if kind == "ConstantOfShape" else ["w", "shape"]
    save_onnx(linear([shape], [helper.make_node(kind, inputs, ["z"], name="bomb")]), tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="'bomb' would make a tensor of shape \\[32768, 32768\\]"):
        load_onnx(tmp_path / "m.onnx")


def test_tensors_in_branches_are_found(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Identity", ["deep"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "deep")],
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    save_onnx(linear([condition], [node]), tmp_path / "m.onnx")
    assert [t.name for t in all_tensors(load_onnx(tmp_path / "m.onnx"))].count("deep") == 2


def test_names_that_are_no_text_are_refused(tmp_path):
    content = serialize(linear()).replace(b"MatMul", b"Mat\xfful")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphError, match="names that are not text"):
        load_onnx(tmp_path / "m.onnx")
