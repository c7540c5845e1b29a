import argparse
import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rctk.checkpoint import load_model, save_checkpoint
from rctk.models import build_architecture
from rctk.models.resize import adopt
from rctk.models.selection import select_instead_of_pad
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.25,))
ARCH = "mlp:hidden=6,layers=1"
CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def module():
    torch.manual_seed(0)
    return build_architecture(ARCH, classes=3, input=SPEC).eval()


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def refusal(path, **flags):
    """The one line with which ``load_model`` refuses."""
    with pytest.raises(ModelError) as caught:
        load_model(path, **flags)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# --- rctk's own files


@pytest.mark.parametrize(("name", "form"), [("model.pt", "checkpoint"), ("model.safetensors", "safetensors")])
def test_a_checkpoint_comes_back_without_flags(tmp_path, module, images, name, form):
    path = tmp_path / name
    save_checkpoint(path, module, arch=ARCH, input=SPEC, classes=CLASSES, extra={"epochs": 3, "eps": 0.5})
    loaded = load_model(path)
    assert torch.equal(loaded.module(images), module(images))
    assert (loaded.input, loaded.classes, loaded.arch, loaded.form) == (SPEC, CLASSES, ARCH, form)
    assert loaded.extra == {"epochs": 3, "eps": 0.5}
    assert loaded.source == str(path)
    assert not loaded.module.training
    assert listing(tmp_path) == [name]


def test_a_checkpoint_is_plain_data(tmp_path, module):
    save_checkpoint(tmp_path / "a.pt", module, arch=ARCH, input=SPEC, classes=CLASSES)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["format"] == "rctk-checkpoint"
    assert content["input"] == {
        "channels": 1,
        "height": 8,
        "width": 8,
        "mean": [0.5],
        "std": [0.25],
        "dtype": "float32",
    }


def test_the_same_model_gives_the_same_bytes_and_the_same_sha256(tmp_path, module):
    for name in ("a.pt", "b.pt"):
        save_checkpoint(tmp_path / name, module, arch=ARCH, input=SPEC, classes=CLASSES)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    sha256 = subprocess.run(
        ["sha256sum", tmp_path / "a.pt"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert load_model(tmp_path / "a.pt").sha256 == sha256


def test_flags_must_not_contradict_the_checkpoint(tmp_path, module):
    path = tmp_path / "a.pt"
    save_checkpoint(path, module, arch=ARCH, input=SPEC, classes=CLASSES)
    assert load_model(path, input=SPEC, arch=ARCH, classes=3).classes == CLASSES
    other = InputSpec(channels=1, height=8, width=8)
    assert "leave --input" in refusal(path, input=other)
    assert "has 3 outputs, expected 5 classes" in refusal(path, classes=5)


def test_a_checkpoint_whose_architecture_is_a_file_asks_before_it_runs_that_file(tmp_path, module):
    mark = tmp_path / "ran"
    nets = tmp_path / "nets.py"
    nets.write_text(
        f"from pathlib import Path\nfrom rctk.models.small import mlp\nPath({str(mark)!r}).touch()\n"
        "def net(classes, image_shape): return mlp(classes=classes, image_shape=image_shape, hidden=6, layers=1)\n"
    )
    path = tmp_path / "a.pt"
    save_checkpoint(path, module, arch=f"{nets}:net", input=SPEC, classes=CLASSES)
    assert f"--arch {nets}:net, which runs code" in refusal(path)
    assert not mark.exists()
    assert load_model(path, arch=f"{nets}:net").classes == CLASSES
    assert mark.exists()


def test_a_newer_or_damaged_checkpoint_is_refused(tmp_path, module):
    path = tmp_path / "a.pt"
    save_checkpoint(path, module, arch=ARCH, input=SPEC, classes=CLASSES)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 2}, path)
    assert "version 2, this rctk reads up to 1; upgrade" in refusal(path)
    del content["classes"]
    torch.save(content, path)
    assert "damaged checkpoint (KeyError: 'classes')" in refusal(path)
    torch.save({**content, "classes": ["a"], "input": {"channels": 0, "height": 1, "width": 1}}, path)
    assert "damaged checkpoint" in refusal(path)


def test_extra_must_be_plain(tmp_path, module):
    with pytest.raises(ModelError, match="plain JSON"):
        save_checkpoint(tmp_path / "a.pt", module, arch=ARCH, input=SPEC, classes=CLASSES, extra={"x": torch.ones(1)})
    assert not listing(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, module):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    script = (
        "import resource, sys, torch\n"
        "from rctk.checkpoint import save_checkpoint\n"
        "from rctk.models.small import mlp\n"
        "from rctk_export.input_spec import InputSpec\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"  # the file system takes no more than 1,000 bytes
        "try: save_checkpoint(sys.argv[1], mlp(), arch='mlp', input=InputSpec(channels=1, height=28, width=28), "
        "classes='0123456789')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"ModelError cannot write {path}: File too large; nothing was changed")
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["a.pt"]


def test_a_folder_that_is_not_there_and_one_in_the_way_are_named(tmp_path, module):
    for path in (tmp_path / "no" / "a.pt", tmp_path):
        with pytest.raises(ModelError, match="cannot write"):
            save_checkpoint(path, module, arch=ARCH, input=SPEC, classes=CLASSES)
    assert not listing(tmp_path)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, module, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rctk_export.whole_file.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pt", module, arch=ARCH, input=SPEC, classes=CLASSES)
    assert not listing(tmp_path)


# --- bare state dicts


WRAPPINGS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "net": lambda state: {"net": state, "acc": 91.2},
    "list": lambda state: {"state_dict": [state], "err": [0.1]},
    "data parallel": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "lightning, compiled": lambda state: {"state_dict": {f"model._orig_mod.{k}": v for k, v in state.items()}},
    "half precision": lambda state: {key: value.half() for key, value in state.items()},
    "options and NumPy numbers": lambda state: {
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.9),
        "epoch": np.int64(3),
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_a_state_dict_is_found_in_what_training_scripts_write(tmp_path, module, images, wrap):
    state = {key: value.half().float() for key, value in module.state_dict().items()}  # exact in half precision
    module.load_state_dict(state)
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path)
    loaded = load_model(path, arch=ARCH, input=SPEC)
    assert torch.equal(loaded.module(images), module(images))
    assert loaded.classes == ("0", "1", "2")
    assert loaded.form == "state-dict"
    assert {value.dtype for value in loaded.module.state_dict().values()} == {torch.float32}


def test_the_old_file_format_of_torch_is_read(tmp_path, module, images):
    torch.save(module.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_model(tmp_path / "a.pth", arch=ARCH, input=SPEC).module(images), module(images))


def test_a_prefix_that_belongs_to_the_architecture_stays(tmp_path, images):
    nets = tmp_path / "nets.py"
    nets.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "    def forward(self, x): return self.model(x)\n"
    )
    state = {"module.model.1.weight": torch.ones(3, 64), "module.model.1.bias": torch.arange(3.0)}
    torch.save(state, tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth", arch=f"{nets}:Net", input=SPEC)
    assert loaded.module(torch.zeros(1, 1, 8, 8)).tolist() == [[0, 1, 2]]


def test_safetensors_without_our_metadata_need_the_same_flags_as_a_state_dict(tmp_path, module, images):
    path = tmp_path / "a.safetensors"
    save_file(module.state_dict(), path, metadata={"format": "pt"})
    loaded = load_model(path, arch=ARCH, input=SPEC)
    assert torch.equal(loaded.module(images), module(images))
    assert loaded.form == "safetensors"
    assert "give --arch" in refusal(path, input=SPEC)


def test_widths_are_read_from_the_weights_where_a_factory_asks_for_them(tmp_path):
    nets = tmp_path / "nets.py"
    nets.write_text(
        "from torch import nn\n"
        "def net(state_dict):\n"
        "    hidden = len(state_dict['1.weight'])\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 4))\n"
    )
    pruned = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4))
    torch.save({f"module.{key}": value for key, value in pruned.state_dict().items()}, tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth", arch=f"{nets}:net", input=SPEC).module[1].out_features == 5


def test_the_last_layer_tells_the_number_of_classes(tmp_path):
    torch.save(build_architecture("resnet20:depth=8", classes=43, input=None).state_dict(), tmp_path / "a.pth")
    spec = InputSpec(channels=3, height=32, width=32)
    assert len(load_model(tmp_path / "a.pth", arch="resnet20:depth=8", input=spec).classes) == 43
    assert "linear.weight has shape (43, 64), the architecture expects (10, 64)" in refusal(
        tmp_path / "a.pth", arch="resnet20:depth=8", input=spec, classes=10
    )


def test_loading_leaves_the_global_generator_alone(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "a.pth")
    before = torch.get_rng_state()
    load_model(tmp_path / "a.pth", arch=ARCH, input=SPEC)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_dict_that_does_not_fit_names_keys_and_shapes_and_what_would_fit(tmp_path):
    path = tmp_path / "a.pth"
    state = build_architecture("resnet20", classes=None, input=None).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    spec = InputSpec(channels=3, height=32, width=32)
    message = refusal(path, arch="resnet56", input=spec)
    assert "layer1.3.conv1.weight (16, 16, 3, 3) is missing in the file" in message
    assert "nearest: --arch resnet20 (100% of the tensors fit)" in message
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    del state["bn1.weight"]
    state["extra"] = torch.zeros(2)
    torch.save(state, path)
    message = refusal(path, arch="resnet20", input=spec)
    assert "conv1.weight has shape (16, 1, 3, 3), the architecture expects (16, 3, 3, 3)" in message
    assert "bn1.weight (16,) is missing in the file" in message
    assert "extra (2,) is not in the architecture" in message


def test_a_missing_architecture_is_answered_with_the_nearest(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(build_architecture("resnet32-b", classes=None, input=None).state_dict(), path)
    message = refusal(path)
    assert "give --arch; nearest: --arch resnet32-b (100% of the tensors fit)" in message
    torch.save({"odd.name": torch.zeros(3)}, path)
    assert "no built-in architecture comes near; write a factory" in refusal(path)


PRUNED_NETS = """
from torch import nn
def net(hidden=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))
"""


@pytest.fixture
def narrow(tmp_path):
    """Return a function that saves a net of another width, and the factory of the dense net."""
    nets = tmp_path / "nets.py"
    nets.write_text(PRUNED_NETS)
    scope: dict = {}
    exec(PRUNED_NETS, scope)

    def save(hidden, change=lambda state: None):
        state = {f"module.{key}": value for key, value in scope["net"](hidden).state_dict().items()}
        change(state)
        torch.save({"state_dict": state}, tmp_path / "narrow.pth")
        return tmp_path / "narrow.pth", f"{nets}:net"

    return save


def test_a_pruned_state_dict_is_answered_with_the_architecture_that_reads_it(narrow):
    path, arch = narrow(5)
    message = refusal(path, arch=arch, input=SPEC)
    assert "its names are there, but tensors are smaller, as after pruning (1.weight has shape (5, 64)" in message
    assert message.endswith(f"give --arch pruned:{arch}")
    assert load_model(path, arch=f"pruned:{arch}", input=SPEC).module[1].out_features == 5


def larger(state):
    state["module.1.weight"] = torch.zeros(5, 65)


def another_rank(state):
    state["module.1.weight"] = torch.zeros(5, 64, 1)


def one_less(state):
    del state["module.4.bias"]


def not_composed(state):
    state["module.4.weight"] = torch.zeros(3, 4)


@pytest.mark.parametrize("change", [larger, another_rank, one_less, not_composed])
def test_pruning_is_not_blamed_for_what_it_cannot_have_done(narrow, change):
    path, arch = narrow(5, change)
    assert f"pruned:{arch}" not in refusal(path, arch=arch, input=SPEC)


def test_pruning_is_not_blamed_where_the_classes_or_the_images_are_wrong(narrow):
    path, arch = narrow(5)
    assert "pruned:" not in refusal(path, arch=arch, input=SPEC, classes=2)
    assert "pruned:" not in refusal(path, arch=arch, input=InputSpec(channels=1, height=9, width=8))


@pytest.mark.parametrize("spec", [None, InputSpec(channels=3, height=32, width=32)])
@pytest.mark.parametrize("name", ["resnet20", "resnet20-b"])
def test_a_missing_architecture_of_a_pruned_net_is_answered_too(tmp_path, name, spec):
    images = InputSpec(channels=3, height=32, width=32)
    module = build_architecture(name, classes=10, input=images)
    select_instead_of_pad(module, images.shape)  # as pruning does, which gives shortcuts names of their own
    for layer in (module.layer1[0].conv1, module.layer1[0].bn1):
        adopt(layer, {key: value[:12] for key, value in layer.state_dict().items() if value.ndim})
    adopt(module.layer1[0].conv2, {"weight": module.layer1[0].conv2.weight[:, :12]})
    path = tmp_path / "pruned.pth"
    torch.save(module.state_dict(), path)
    assert f"nearest: --arch pruned:{name} (its names are there, but tensors are smaller" in refusal(path, input=spec)
    assert f"give --arch pruned:{name}" in refusal(path, arch=name, input=images)
    loaded = load_model(path, arch=f"pruned:{name}", input=images)
    assert loaded.module.layer1[0].conv1.out_channels == 12


def test_missing_and_wrong_input_sizes_are_named(tmp_path, module):
    path = tmp_path / "a.pth"
    torch.save(module.state_dict(), path)
    assert "give --input 3x32x32" in refusal(path, arch=ARCH)
    lenet = build_architecture("lenet5", classes=10, input=None)
    torch.save(lenet.state_dict(), path)
    message = refusal(path, arch="lenet5", input=InputSpec(channels=1, height=32, width=32))
    assert "ip1.weight has shape (500, 800), the architecture expects (500, 1250)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(tmp_path, module, value):
    module[3].bias.data[1] = value
    path = tmp_path / "a.pt"
    save_checkpoint(path, module, arch=ARCH, input=SPEC, classes=CLASSES)
    assert "3.bias holds 1 NaN or Inf of 3 values" in refusal(path)


# --- captured graphs


def capture(kind, module, path, batch=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        if kind == "script":
            torch.jit.save(torch.jit.script(module), path)
        elif kind == "trace":
            torch.jit.save(torch.jit.trace(module, torch.zeros(2, 1, 8, 8)), path)
        else:
            shapes = None if batch else ({0: torch.export.Dim.DYNAMIC},)
            torch.export.save(
                torch.export.export(module, (torch.zeros(batch or 2, 1, 8, 8),), dynamic_shapes=shapes), path
            )


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)
    )
    module(torch.rand(8, 1, 8, 8))  # BatchNorm statistics other than 0 and 1
    return module.eval()


@pytest.mark.parametrize("kind", ["script", "trace", "pt2"])
def test_a_captured_graph_is_read_and_can_be_captured_again(tmp_path, convolutional, images, kind):
    path = tmp_path / "model.pt"
    capture(kind, convolutional, path)
    loaded = load_model(path, input=SPEC)
    assert loaded.form == ("pt2" if kind == "pt2" else "torchscript")
    torch.testing.assert_close(loaded.module(images), convolutional(images))
    loaded.module.train()  # stays in evaluation mode
    torch.testing.assert_close(loaded.module(images), convolutional(images))
    again = torch.export.export(loaded.module, (images[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(again.module()(images), convolutional(images))
    x = images.clone().requires_grad_()
    assert torch.autograd.grad(loaded.module(x).sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("kind", ["script", "pt2"])
def test_a_captured_graph_needs_an_input_spec_and_no_architecture(tmp_path, convolutional, kind):
    path = tmp_path / "model.pt"
    capture(kind, convolutional, path)
    assert "--input" in refusal(path)
    assert "leave --arch mlp out" in refusal(path, input=SPEC, arch="mlp")
    assert "images" in refusal(path, input=InputSpec(channels=1, height=9, width=9))


def test_a_program_of_one_batch_size_is_refused(tmp_path, convolutional):
    capture("pt2", convolutional, tmp_path / "model.pt2", batch=4)
    assert "batch of exactly 4; export it again" in refusal(tmp_path / "model.pt2", input=SPEC)


def test_a_graph_captured_in_training_mode_is_refused(tmp_path, convolutional):
    convolutional.train()
    capture("pt2", convolutional, tmp_path / "model.pt2")
    assert "after model.eval()" in refusal(tmp_path / "model.pt2", input=SPEC)


# --- pickles


class Touches:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path, module, zipped):
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": module.state_dict(), "x": Touches(mark)}, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path, arch=ARCH, input=SPEC)
    assert not mark.exists()
    assert "was not loaded" in message
    assert "--trust-pickle" in message


def test_a_pickled_module_is_refused_unless_trusted(tmp_path, convolutional, images):
    path = tmp_path / "whole.pt"
    torch.save(convolutional, path)
    message = refusal(path, input=SPEC)
    assert "it names torch.nn.modules" in message
    assert "--trust-pickle" in message
    loaded = load_model(path, input=SPEC, trust_pickle=True)
    assert torch.equal(loaded.module(images), convolutional(images))
    assert (loaded.form, loaded.arch) == ("pickle", "torch.nn.modules.container.Sequential")


def test_a_pickled_data_parallel_module_is_unwrapped(tmp_path, convolutional, images):
    torch.save(nn.DataParallel(convolutional), tmp_path / "whole.pt")
    loaded = load_model(tmp_path / "whole.pt", input=SPEC, trust_pickle=True)
    assert isinstance(loaded.module, nn.Sequential)
    assert torch.equal(loaded.module(images), convolutional(images))


def test_a_trusted_pickle_whose_class_is_gone_says_so(tmp_path):
    path = tmp_path / "whole.pt"
    script = "import sys, torch\nclass Net(torch.nn.Linear): pass\ntorch.save(Net(2, 3), sys.argv[1])\n"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert "needs code that is not here" in refusal(path, input=SPEC, trust_pickle=True)


# --- files that are no models


def test_files_that_are_no_models_are_told_apart(tmp_path, module):
    good = tmp_path / "good.pt"
    save_checkpoint(good, module, arch=ARCH, input=SPEC, classes=CLASSES)
    old = tmp_path / "old.pt"
    torch.save(module.state_dict(), old, _use_new_zipfile_serialization=False)
    tensors = tmp_path / "good.safetensors"
    save_checkpoint(tensors, module, arch=ARCH, input=SPEC, classes=CLASSES)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "hello")
    plain = tmp_path / "plain.pickle"
    plain.write_bytes(pickle.dumps({"a": 1}))
    lines = {
        "missing.pt": (None, "there is no model file"),
        "empty.pt": (b"", "is empty"),
        "text.pt": (b"hello, world\n", "is not a model file: it begins with b'hello, w'"),
        "cut.pt": (good.read_bytes()[:-200], "is cut short or damaged"),
        "cut-old.pt": (old.read_bytes()[:-200], "is cut short or damaged"),
        "cut.safetensors": (tensors.read_bytes()[:-200], "is cut short or damaged"),
        "archive.zip": (archive.read_bytes(), "is a zip archive without a model"),
        "plain.pickle": (plain.read_bytes(), "is a pickle that torch.save did not write"),
        "model.onnx": (b"\x08\x0a", "is an ONNX file"),
    }
    for name, (data, words) in lines.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        assert words in refusal(path, arch=ARCH, input=SPEC), name
    assert "is a folder" in refusal(tmp_path)


def test_a_path_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    assert "Not a directory; check its permissions" in refusal(tmp_path / "a.pt" / "b.pt")


def test_an_archive_that_grows_while_unpacking_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data.pkl", b"\0" * 10_000_000)
    assert "would unpack to 10000000" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3}, "holds no tensors (its keys: epoch)"),
        ({}, "holds no tensors (its keys: nothing)"),
        (torch.zeros(3), "holds a Tensor, expected a state dict"),
        ([{}, {}], "holds a list of 2 things"),
    ],
)
def test_a_saved_thing_that_is_no_state_dict_is_described(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pt")
    assert words in refusal(tmp_path / "a.pt", arch=ARCH, input=SPEC)


def test_damaged_metadata_of_safetensors_is_refused(tmp_path, module):
    save_file(module.state_dict(), tmp_path / "a.safetensors", metadata={"rctk": "{"})
    assert "cut short or damaged" in refusal(tmp_path / "a.safetensors")
    save_file(module.state_dict(), tmp_path / "a.safetensors", metadata={"rctk": json.dumps({"version": 1})})
    assert "damaged checkpoint" in refusal(tmp_path / "a.safetensors")


# --- modules that are no classifiers


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def logits(self, x):
        return self.linear(x.flatten(1))

class Two(Net):
    def forward(self, x):
        return self.logits(x), x

class Pair(Net):
    def forward(self, x, y):
        return self.logits(x)

class Map(Net):
    def forward(self, x):
        return self.logits(x)[:, :, None]

class One(Net):
    def forward(self, x):
        return self.logits(x)[:, :1]

class Overflow(Net):
    def forward(self, x):
        return self.logits(x) / 0
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Two", "returns a tuple of 2, expected one tensor of logits"),
        ("Pair", "missing 1 required positional argument"),
        ("Map", "returns (2, 3, 1) for 2 images 1x8x8"),
        ("One", "returns (2, 1) for 2 images 1x8x8, expected logits (2, K), K >= 2"),
        ("Overflow", "returns NaN or Inf for an image of zeros"),
    ],
)
def test_a_module_that_is_no_classifier_is_refused(tmp_path, name, words):
    (tmp_path / "nets.py").write_text(NETS)
    torch.save(nn.ModuleDict({"linear": nn.Linear(64, 3)}).state_dict(), tmp_path / "a.pth")
    assert words in refusal(tmp_path / "a.pth", arch=f"{tmp_path / 'nets.py'}:{name}", input=SPEC)


def test_an_unknown_architecture_is_an_option_error(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(OptionError, match="did you mean 'resnet20'"):
        load_model(tmp_path / "a.pth", arch="resnet-20", input=SPEC)
