"""A model that cannot be exported is refused on one line; nothing is written, and a pickle runs no code."""

from __future__ import annotations

import os
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

CALIBRATION = ("--calibration", "digits:train", "-o", "out")
INPUT = ("--input", "1x8x8")
NETS = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

class Branches(Base):
    def forward(self, x):
        if x.sum() > 0:
            return self.fc(x.flatten(1))
        return self.fc(-x.flatten(1))

class Bessel(Base):
    def forward(self, x):
        return self.fc(torch.special.i0(x).flatten(1))

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.lstm(x[:, 0])[0][:, -1])

class Pair(Base):
    def forward(self, x):
        return self.fc(x.flatten(1)), x

class Mixes(Base):
    def forward(self, x):
        return self.fc(x.flatten(1)) * x.max()

class Raises(Base):
    def __init__(self):
        raise RuntimeError("boom")
"""


class Runs:
    """Unpickling this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("it-ran",)


@pytest.fixture
def nothing_written(tmp_path):
    """Look at the folder afterwards: no bundle, no leftover of one, no record."""
    before = {path.name for path in tmp_path.iterdir()}
    yield
    new = {path.name for path in tmp_path.iterdir()} - before
    assert not {name for name in new if name in {"out", "runs", "it-ran"} or name.startswith(".")}


@pytest.fixture
def nets(tmp_path):
    """An architecture file, and a state dict for one of its nets."""
    (tmp_path / "nets.py").write_text(NETS)

    def save(name):
        scope = {"__name__": "nets"}
        exec(NETS, scope)
        module = scope["Base" if name == "Raises" else name]()
        torch.save(module.state_dict(), tmp_path / f"{name}.pt")
        return tmp_path / f"{name}.pt", "--arch", f"nets.py:{name}", *INPUT

    return save


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.pt", None, ["no model file", "check the path"]),
        ("empty.pt", b"", ["empty", "save or copy"]),
        ("text.pt", b"hello, this is no model", ["not a model file", "torch.save"]),
        ("missing.onnx", None, ["no ONNX file", "check the path"]),
        ("empty.onnx", b"", ["empty", "export or copy"]),
        ("text.onnx", b"hello", ["not an ONNX model", "export or copy"]),
    ],
)
def test_no_model_at_all(rctk, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refusal = rctk("export", name, *INPUT, *CALIBRATION).refusal
    assert all(word in refusal for word in [name, *words])


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("source", ["checkpoint", "float_onnx"])
def test_a_truncated_file_is_named_as_such(rctk, tmp_path, request, source):
    whole = request.getfixturevalue(source)
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "cut" in rctk("export", cut, *INPUT, *CALIBRATION).refusal.partition(cut.name)[2]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("content", [Runs(), {"state_dict": {"w": torch.zeros(1)}, "more": Runs()}])
def test_a_pickle_that_would_run_code_does_not(rctk, tmp_path, content):
    torch.save(content, tmp_path / "evil.pt")
    refusal = rctk("export", "evil.pt", "--arch", "mlp", *INPUT, *CALIBRATION).refusal
    assert "run code" in refusal
    assert "--trust-pickle" in refusal


@pytest.mark.usefixtures("nothing_written")
def test_a_plain_pickle_is_not_loaded_either(rctk, tmp_path):
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Runs()))
    assert "torch.save did not write" in rctk("export", "plain.pkl", *INPUT, *CALIBRATION).refusal


@pytest.mark.usefixtures("nothing_written")
def test_a_state_dict_names_the_first_keys_that_differ(rctk, tmp_path, checkpoint):
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], tmp_path / "state.pt")
    assert "give --arch; nearest: --arch digits-cnn" in rctk("export", "state.pt", *CALIBRATION).refusal
    assert "--input" in rctk("export", "state.pt", "--arch", "digits-cnn", *CALIBRATION).refusal
    other = rctk("export", "state.pt", "--arch", "resnet20", "--input", "3x32x32", *CALIBRATION).refusal
    assert "conv1.weight (16, 3, 3, 3) is missing in the file; bn1.weight" in other
    shape = rctk("export", "state.pt", "--arch", "digits-cnn", "--input", "3x8x8", *CALIBRATION).refusal
    assert "0.weight has shape (32, 1, 3, 3), the architecture expects (32, 3, 3, 3)" in shape


def test_the_state_dict_of_a_pruned_net_names_the_architecture_that_reads_it(rctk, tmp_path, checkpoint):
    (tmp_path / "net.py").write_text("from rctk.models.small import digits_cnn\ndef make(): return digits_cnn()\n")
    prune = ("--step", "prune.depgraph:criterion=l1,ratio=0.5,by=macs")
    assert rctk("compress", checkpoint, "--data", "digits:train", "--samples", "60", *prune, "-o", "np.pt").code == 0
    torch.save(torch.load("np.pt", weights_only=True)["state_dict"], tmp_path / "state.pt")
    asked = ("export", "state.pt", *INPUT, *CALIBRATION)
    assert "nearest: --arch pruned:digits-cnn" in rctk(*asked).refusal
    assert "give --arch pruned:net.py:make" in rctk(*asked, "--arch", "net.py:make").refusal
    assert rctk("inspect", "state.pt", *INPUT, "--arch", "pruned:net.py:make").code == 0


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("digits-cn", ["did you mean 'digits-cnn'", "FILE.py:FACTORY"]),
        ("nowhere.py:net", ["no file nowhere.py"]),
        ("nets.py:net", ["no net in", "choose from", "Branches"]),
        ("nets.py:Raises", ["failed", "boom"]),
    ],
)
def test_an_architecture_that_cannot_be_had(rctk, nets, arch, words):
    path, *_ = nets("Raises")
    refusal = rctk("export", path, "--arch", arch, *INPUT, *CALIBRATION).refusal
    assert all(word in refusal for word in words)


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(rctk, tmp_path, checkpoint, changed, bad):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["0.weight"].view(-1)[3] = bad
    torch.save(content, tmp_path / "bad.pt")
    assert "bad.pt: 0.weight holds 1 NaN or Inf" in rctk("export", "bad.pt", *CALIBRATION).refusal

    def spoil(model):
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] = bad
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    refusal = rctk("export", changed(spoil), *INPUT, *CALIBRATION).refusal
    assert "changed.onnx: weight" in refusal
    assert "NaN or infinity" in refusal


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("Branches", ["nets.py:12 `if x.sum() > 0:`", "torch.where"]),
        ("Bessel", ["no operator for torch's prims.bessel_i0", "forward()"]),
        ("Recurrent", ["operator LSTM", "replace it"]),
        ("Pair", ["returns a tuple of 2", "logits alone"]),
        ("Mixes", ["change with the rest of its batch", "eval()"]),
    ],
)
def test_what_cannot_be_captured_is_named_and_nothing_else_is_printed(rctk, nets, net, words):
    done = rctk("export", *nets(net), *CALIBRATION)
    assert all(word in done.refusal for word in words)
    rest = [line for line in done.err.splitlines() if not line.startswith(("rctk: ", "capture: "))]
    assert rest == []
    assert done.out == ""


def one_operator(tmp_path, kind, **more):
    """A float classifier whose first node is of the given kind."""
    weight = numpy_helper.from_array(np.ones((64, 10), np.float32), "w")
    nodes = [
        helper.make_node(kind, ["images"], ["odd"], name="odd", **more),
        helper.make_node("Flatten", ["odd"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 1, 8, 8]), ("logits", ["n", 10]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 20), ("com.acme", 1))]
    path = tmp_path / "odd.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("Hardmax", {}, ["Hardmax", "standard operators"]),
        ("Thing", {"domain": "com.acme"}, ["com.acme:Thing", "standard operators"]),
    ],
)
def test_an_operator_that_is_not_supported_is_named(rctk, tmp_path, kind, more, words):
    refusal = rctk("export", one_operator(tmp_path, kind, **more), *INPUT, *CALIBRATION).refusal
    assert all(word in refusal for word in words)


def test_query_attacks_reach_an_engine_whose_operators_the_twin_lacks(rctk, tmp_path, digits):
    path = one_operator(tmp_path, "Hardmax")
    common = ("attack", path, *INPUT, "--data", digits, "--samples", "20")
    assert "Hardmax" in rctk(*common, "--attack", "pgd").refusal
    assert rctk(*common, "--attack", "square:queries=5").code == 0


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def second_output(model):
    model.graph.output.append(helper.make_tensor_value_info(model.graph.node[0].output[0], TensorProto.FLOAT, None))


def normalisation(model):
    model.graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), 0.3, np.float32), "mu"))
    for node in model.graph.node:
        node.input[:] = ["normed" if name == "images" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Sub", ["images", "mu"], ["normed"], name="norm"))


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("change", "flags", "words"),
    [
        (second_input, INPUT, ["expected one input, found 2: 'images', 'mask'"]),
        (second_output, INPUT, ["expected one output, found 2"]),
        (normalisation, (*INPUT, "--mean", "0.3"), ["already holds normalisation", "'norm'", "leave --mean"]),
        (lambda _: None, ("--input", "3x8x8"), ["['batch', 1, 8, 8]", "--input CxHxW"]),
        (lambda _: None, (), ["add --input 3x32x32"]),
    ],
)
def test_a_graph_of_another_form_is_refused_by_name(rctk, changed, change, flags, words):
    refusal = rctk("export", changed(change), *flags, *CALIBRATION).refusal
    assert all(word in refusal for word in ["changed.onnx", *words])


@pytest.mark.usefixtures("nothing_written")
def test_an_int8_file_is_not_quantized_again(rctk, bundle):
    assert "quantized already" in rctk("export", bundle / "int8-cpu.onnx", *INPUT, *CALIBRATION).refusal


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("location", ["../outside.bin", "{folder}/outside.bin", "link.bin", "absent.bin"])
@pytest.mark.parametrize("command", ["export", "inspect", "attack"])
def test_external_data_stays_in_the_folder_of_the_model(rctk, tmp_path, float_onnx, command, location):
    folder = tmp_path / "models"
    folder.mkdir()
    model = onnx.load(float_onnx)
    tensor = model.graph.initializer[0]
    (tmp_path / "outside.bin").write_bytes(tensor.raw_data)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    tensor.external_data.add(key="location", value=location.format(folder=tmp_path))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    flags = {"export": (*INPUT, *CALIBRATION), "inspect": (), "attack": (*INPUT, "--data", "digits:test")}[command]
    refusal = rctk(command, "models/model.onnx", *flags).refusal
    assert "the external data of tensor" in refusal
    assert any(words in refusal for words in ("outside the model's own folder", "is a link", "no such file"))


def test_an_all_zero_channel_exports(rctk, tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    for name in ("0.weight", "0.bias"):
        content["state_dict"][name][0] = 0
    torch.save(content, tmp_path / "dead.pt")
    done = rctk("export", "dead.pt", *CALIBRATION, "--calibration-samples", "32", "--check-samples", "32")
    assert done.code == 0, done.err
    assert rctk("inspect", "out").code == 0
