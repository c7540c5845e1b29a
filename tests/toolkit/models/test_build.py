import sys

import pytest
import torch
from torch import nn

from rctk.models import ARCHITECTURES, build_architecture, built_in, runs_code
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

# Parameters as published with the weight files or papers, or added up by hand for the small ones:
# digits-cnn 320 + 9,248 + 65,664 + 1,290; mlp 200,960 + 65,792 + 2,570; mnist-cnn 320 + 18,496 + 627,400 + 2,010
PARAMETERS = {
    "digits-cnn": 76_522,
    "lenet5": 431_080,
    "mlp": 269_322,
    "mnist-cnn": 648_226,
    "mobilenetv2": 2_236_682,
    "resnet18": 11_173_962,
    "resnet20": 269_722,
    "resnet20-b": 272_474,
    "resnet32": 464_154,
    "resnet32-b": 466_906,
    "resnet44": 658_586,
    "resnet44-b": 661_338,
    "resnet56": 853_018,
    "resnet56-b": 855_770,
    "vgg16-bn": 14_728_266,
    "wrn-28-4": 5_849_050,
}


def test_every_architecture_has_its_row_here():
    assert sorted(PARAMETERS) == ARCHITECTURES.names()


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_an_architecture_has_its_parameters_and_classifies_each_image_by_itself(name):
    module = build_architecture(name, classes=None, input=None).eval()
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
    shape = (
        (1, 8, 8)
        if name.startswith("digits")
        else (1, 28, 28)
        if name in {"lenet5", "mnist-cnn", "mlp"}
        else (3, 32, 32)
    )
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, first = module(images), module(images[:1])
    assert both.shape == (2, 10)
    torch.testing.assert_close(both[:1], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["digits-cnn", "lenet5", "mlp", "mnist-cnn", "mobilenetv2", "resnet20", "resnet20-b"])
def test_an_architecture_follows_the_input_and_the_classes(name):
    spec = InputSpec(channels=2, height=24, width=20)
    module = build_architecture(name, classes=7, input=spec).eval()
    assert module(torch.zeros(1, 2, 24, 20)).shape == (1, 7)


@pytest.mark.parametrize("name", ["lenet5", "resnet20:depth=8", "wrn-28-4:depth=10,widen=1"])
def test_an_architecture_can_be_captured_with_a_dynamic_batch(name):
    module = build_architecture(name, classes=None, input=None).eval()
    shape = (1, 28, 28) if name == "lenet5" else (3, 32, 32)
    program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert program.module()(torch.zeros(5, *shape)).shape == (5, 10)


def test_settings_reach_the_factory():
    module = build_architecture("lenet5:conv1=6,conv2=16,hidden=120,conv-relu=yes", classes=10, input=None)
    assert [module.conv1.out_channels, module.conv2.out_channels, module.ip1.out_features] == [6, 16, 120]
    assert module.conv_relu is True


def test_the_relu_of_lenet_changes_what_pooling_sees():
    plain = build_architecture("lenet5", classes=2, input=None)
    other = build_architecture("lenet5:conv_relu=true", classes=2, input=None)
    other.load_state_dict(plain.state_dict())
    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(plain(images), other(images))


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("resnet-20", OptionError, "did you mean 'resnet20'"),
        ("resnet2:depth=8", OptionError, "unknown architecture 'resnet2'"),
        ("mlp:hiden=3", OptionError, "did you mean 'hidden'"),
        ("mlp:hidden=abc", OptionError, "must be a whole number"),
        ("mlp:hidden", OptionError, "key=value"),
        ("mlp:classes=3", OptionError, "unknown setting"),
        ("resnet20:depth=21", OptionError, "6n [+] 2"),
        ("wrn-28-4:depth=11", OptionError, "6n [+] 4"),
        ("mlp:layers=-1", OptionError, "layers >= 0"),
        ("nowhere.at.all:net", ModelError, "cannot import nowhere.at.all"),
        ("nowhere.py:net", ModelError, "there is no file nowhere.py"),
        ("nowhere.py:", ModelError, "names no factory"),
        ("torch.nn:Nothing", ModelError, "there is no Nothing in torch.nn"),
        ("os:getcwd", ModelError, "must return a torch.nn.Module, it returned str"),
    ],
)
def test_a_wrong_text_is_answered_in_one_line(text, kind, words):
    with pytest.raises(kind, match=words) as caught:
        build_architecture(text, classes=None, input=None)
    assert "\n" not in str(caught.value)


def test_images_too_small_for_an_architecture_are_refused():
    with pytest.raises(OptionError, match="too small"):
        build_architecture("lenet5", classes=10, input=InputSpec(channels=1, height=8, width=8))


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_zoo_that_cannot_be_imported_says_how_to_get_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"pip install {package}"):
        build_architecture(f"{package}:resnet18", classes=10, input=None)


ZOO = """
from torch import nn
def list_models(module=None): return ['tiny']
def get_model(name, weights=None, num_classes=1000): return nn.Linear(2, num_classes)
def create_model(name, pretrained=True, num_classes=1000, in_chans=3):
    assert not pretrained
    return nn.Linear(in_chans, num_classes)
"""
"""The interface of torchvision.models and of timm, neither of which is installed beside a CPU build of torch."""


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_networks_of_a_zoo_are_built_without_weights(package, tmp_path, monkeypatch):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"from {package}.models import *\n")
    (tmp_path / package / "models.py").write_text(ZOO)
    for name in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert build_architecture(f"{package}:tiny", classes=7, input=None).out_features == 7
        assert build_architecture(f"{package}:tiny", classes=None, input=None).out_features == 1000
        with pytest.raises(ModelError, match=f"hub is not an image classifier that {package} knows"):
            build_architecture(f"{package}:hub:x", classes=7, input=None)
    finally:
        for name in (package, f"{package}.models"):
            sys.modules.pop(name, None)


FACTORIES = """
from dataclasses import dataclass
from torch import nn
from beside import WIDTH

@dataclass
class Size:
    hidden: int = WIDTH

def net(classes=10, *, image_shape=(1, 4, 4), hidden: int = Size().hidden):
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.Linear(hidden, classes))

def torch_style(num_classes=10):
    return nn.Linear(3, num_classes)

def reads_widths(state_dict):
    outputs, inputs = state_dict["weight"].shape
    return nn.Linear(inputs, outputs)

def fails():
    raise RuntimeError("first line\\nsecond line")

class Whole(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)
"""


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    file = tmp_path / "nets.py"
    file.write_text(FACTORIES)
    yield file
    sys.modules.pop("beside", None)


def test_a_factory_in_a_file_gets_what_its_signature_asks_for(factories):
    path = list(sys.path)
    spec = InputSpec(channels=2, height=3, width=3)
    module = build_architecture(f"{factories}:net", classes=4, input=spec)
    assert [(layer.in_features, layer.out_features) for layer in module[1:]] == [(18, 5), (5, 4)]
    assert build_architecture(f"{factories}:net:hidden=6", classes=4, input=spec)[1].out_features == 6
    assert build_architecture(f"{factories}:torch_style", classes=4, input=spec).out_features == 4
    assert build_architecture(f"{factories}:Whole", classes=4, input=spec).out_features == 3
    assert sys.path == path


def test_a_factory_reads_widths_from_the_weights(factories):
    module = build_architecture(
        f"{factories}:reads_widths", classes=None, input=None, state_dict=nn.Linear(6, 2).state_dict()
    )
    assert (module.in_features, module.out_features) == (6, 2)


def test_a_factory_that_fails_is_quoted(factories):
    with pytest.raises(ModelError, match=r"RuntimeError: first line$"):
        build_architecture(f"{factories}:fails", classes=None, input=None)
    with pytest.raises(ModelError, match=r"choose from .*torch_style"):
        build_architecture(f"{factories}:missing", classes=None, input=None)


def test_a_file_that_fails_is_quoted(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        build_architecture(f"{file}:net", classes=None, input=None)


def test_a_factory_in_a_package_below_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_nets_for_rctk.py").write_text("from torch import nn\ndef small(): return nn.Linear(2, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert build_architecture("my_nets_for_rctk:small", classes=None, input=None).out_features == 3
    del sys.modules["my_nets_for_rctk"]


def test_only_ours_and_the_zoos_are_known_not_to_run_code():
    assert built_in("mlp:hidden=3")
    assert not built_in("torchvision:resnet18")
    assert [runs_code(text) for text in ("mlp", "timm:x", "torchvision:x", "a.py:f", "os:system")] == [
        False, False, False, True, True,
    ]  # fmt: skip
