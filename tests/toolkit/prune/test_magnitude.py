"""Which single weights go, counted and worked out by hand; and that their zeros outlive what comes behind."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from rctk.checkpoint import LoadedModel
from rctk.compress import STEPS
from rctk.compress.apply import apply_graph_steps, apply_recipe
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context, Draft
from rctk.data import read_split
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.models import build_architecture
from rctk.models.selection import Selection
from rctk.progress import Silent
from rctk.prune.unstructured import importance, kept, largest, layers_to_prune, least_kept, masks
from rctk.train import draw_weights
from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
ARCH = "resnet20-b:depth=8"


@pytest.fixture
def context():
    split = read_split("digits:train").sample(96, 0)
    return Context(train=split, validation=split.take(np.arange(0, 96, 4)), input=SPEC, progress=Silent())


@pytest.fixture
def residual():
    module = build_architecture(ARCH, classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return module.eval()


def zeros(module):
    """Zero weights and all weights of convolutions and linear layers."""
    weights = [layer.weight for layer in layers_to_prune(module).values()]
    return sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)


def pair(first, second):
    """Two linear layers with these weights."""
    module = nn.Sequential(nn.Linear(len(first[0]), len(first)), nn.Linear(len(second[0]), len(second)))
    for layer, weight in zip(module, (first, second), strict=True):
        layer.weight.data = torch.tensor(weight)
    return module


def test_the_least_magnitudes_of_all_layers_go_together(context):
    module = pair([[9.0, -1.0], [0.5, 8.0]], [[-7.0, 2.0]])
    module = STEPS.build("prune.magnitude:ratio=0.5,floor=0")(module, context)
    assert module[0].weight.tolist() == [[9, 0], [0, 8]]
    assert module[1].weight.tolist() == [[-7, 0]]


def test_locally_every_layer_loses_the_same_share(context):
    module = pair([[9.0, -4.0], [5.0, 8.0]], [[-7.0, 0.2]])
    module = STEPS.build("prune.magnitude:ratio=0.5,scope=local")(module, context)
    assert module[0].weight.tolist() == [[9, 0], [0, 8]]
    assert module[1].weight.tolist() == [[-7, 0]]


def test_a_layer_of_small_weights_keeps_its_floor(context):
    small = [[0.1, 0.4], [-0.3, 0.2]]
    bare = STEPS.build("prune.magnitude:ratio=0.5,floor=0")(pair([[9.0, 4.0], [5.0, 8.0]], small), context)
    assert bare[1].weight.count_nonzero() == 0
    usual = STEPS.build("prune.magnitude:ratio=0.5")(pair([[9.0, 4.0], [5.0, 8.0]], small), context)
    torch.testing.assert_close(usual[1].weight.detach(), torch.tensor([[0, 0.4], [-0.3, 0]]))  # one for each output
    assert usual[0].weight.tolist() == [[9, 0], [0, 8]]  # and the number of zeros is still that which was asked for
    asked = STEPS.build("prune.magnitude:ratio=0.5,floor=0.25")(pair([[9.0, 4.0], [5.0, 8.0]], small), context)
    torch.testing.assert_close(asked[1].weight.detach(), torch.tensor([[0, 0.4], [0, 0]]))


def test_of_equal_weights_the_first_stay():
    assert largest(torch.tensor([[1.0, 2.0], [1.0, 1.0]]), 2).tolist() == [[True, True], [False, False]]
    assert largest(torch.ones(100_000), 5).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    equal = {"a": torch.ones(3), "b": torch.ones(3)}
    found = masks(equal, ratio=0.5, scope="global", least={"a": 0, "b": 0})
    assert [mask.tolist() for mask in found.values()] == [[True] * 3, [False] * 3]


@given(st.floats(0.01, 0.99), st.sampled_from(["local", "global"]), st.integers(0, 2**31))
def test_numbers_are_exact_and_what_goes_is_no_larger_than_what_stays(ratio, scope, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.randint(0, 9, (7, 5, 3), generator=generator).float() for name in "abc"}
    found = masks(scores, ratio=ratio, scope=scope, least=dict.fromkeys(scores, 0))
    parts = [(scores[name], found[name]) for name in scores]
    if scope == "global":
        parts = [tuple(torch.cat(each) for each in zip(*parts, strict=True))]
    for score, keep in parts:
        assert int((~keep).sum()) == int(ratio * score.numel())
        assert score.where(keep, torch.inf).min() >= score.where(~keep, -torch.inf).max()


def test_shares_that_floating_point_cannot_hold_are_counted_as_they_are_written():
    assert [kept(300, percent / 100) for percent in range(1, 100)] == [300 - 3 * percent for percent in range(1, 100)]


def test_a_layer_keeps_a_hundredth_or_one_weight_for_each_output():
    assert least_kept(torch.ones(64, 9), None) == 64
    assert least_kept(torch.ones(8, 1001), None) == 81
    assert least_kept(torch.ones(8, 10), 0.1) == 8


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("criterion", ["magnitude", "grad", "taylor"])
def test_biases_and_batchnorm_stay_whatever_the_criterion(criterion, scope, residual, context):
    before = copy.deepcopy(residual.state_dict())
    step = STEPS.build(f"prune.magnitude:ratio=0.7,criterion={criterion},scope={scope},images=20")
    after = step(residual, context).state_dict()
    layers = {f"{name}.weight" for name in layers_to_prune(residual)}
    assert all(torch.equal(after[key], value) for key, value in before.items() if key not in layers)
    gone, total = zeros(residual)
    shares = [int(0.7 * before[key].numel() + 1e-6) for key in layers] if scope == "local" else [int(0.7 * total)]
    assert gone == sum(shares)


def test_gradients_are_those_of_the_mean_cross_entropy_of_normalised_images():
    spec = InputSpec(channels=1, height=1, width=2, mean=(0.5,), std=(0.5,))
    images = np.array([[[[1.0, 0.5]]], [[[0.0, 1.0]]]], dtype=np.float32)  # (1, 0) and (-1, 1) for the layer
    split = Split(name="two", images=images, labels=np.array([0, 1]))
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    module[1].weight.data = torch.tensor([[math.log(3), 1.0], [0.0, 1.0]])
    # logits (log 3, 0) and (1 - log 3, 1): the first class has 3/4 and 1/4
    slope = torch.tensor([[-0.25 - 0.25, 0.25], [0.25 + 0.25, -0.25]]) / 2
    layers = layers_to_prune(module)
    expected = slope.abs()
    expected[1, 0] = -1  # a weight that is zero already is the first to go
    torch.testing.assert_close(importance(module, layers, "grad", split, spec)["1"], expected)
    expected = (slope * module[1].weight.detach()).abs()
    expected[1, 0] = -1
    torch.testing.assert_close(importance(module, layers, "taylor", split, spec)["1"], expected)
    assert module[1].weight.grad is None


def test_zeros_of_an_earlier_step_are_part_of_the_share(residual, context):
    STEPS.build("prune.nm24")(residual, context)
    before = {name: layer.weight == 0 for name, layer in layers_to_prune(residual).items()}
    STEPS.build("prune.magnitude:ratio=0.7,criterion=grad,images=20")(residual, context)
    assert all((layers_to_prune(residual)[name].weight[zero] == 0).all() for name, zero in before.items())
    gone, total = zeros(residual)
    assert gone == int(0.7 * total)


def test_fixed_and_computed_weights_are_left_out(context):
    module = nn.Sequential(Selection(1, 4, 2, 1), nn.Flatten(), weight_norm(nn.Linear(64, 8)), nn.Linear(8, 10))
    assert list(layers_to_prune(module)) == ["3"]
    before = copy.deepcopy(module.state_dict())
    after = STEPS.build("prune.magnitude:ratio=0.875")(module, context).state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key != "3.weight")
    assert int((after["3.weight"] == 0).sum()) == 70


def test_layers_can_be_skipped(residual, context):
    before = residual.conv1.weight.detach().clone()
    STEPS.build("prune.magnitude:ratio=0.9,skip=conv1+fc")(residual, context)
    assert torch.equal(residual.conv1.weight, before)
    assert residual.fc.weight.count_nonzero() == residual.fc.weight.numel()
    with pytest.raises(OptionError, match="unknown layer with weights 'bn1'"):
        STEPS.build("prune.magnitude:skip=bn1").check_ready(residual, context)
    with pytest.raises(OptionError, match="skip names every layer"):
        layers_to_prune(nn.Sequential(nn.Linear(2, 2)), "0")
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        layers_to_prune(nn.Sequential(nn.Flatten()))


def test_a_ratio_that_floors_leave_no_room_for_is_refused_before_anything_runs(residual, context):
    step = STEPS.build("prune.magnitude:ratio=0.995")
    with pytest.raises(OptionError, match=r"leaves .* of .* weights, and the floors of 10 layers keep .*floor=0\.003"):
        step.check_ready(residual, context)
    STEPS.build("prune.magnitude:ratio=0.995,floor=0.003")(residual, context)
    assert all(layer.weight.count_nonzero() > 0 for layer in layers_to_prune(residual).values())
    STEPS.build("prune.magnitude:ratio=0.995,scope=local").check_ready(residual, context)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("ratio=1", "above 0 and below 1; got 1"),
        ("ratio=0", "above 0 and below 1; got 0"),
        ("floor=1", "from 0 to below 1; got 1"),
        ("floor=0.1,scope=local", "leave floor out"),
        ("images=0", "images must be at least 1, got 0"),
    ],
)
def test_nonsense_is_refused(bad, words):
    with pytest.raises(OptionError, match=words):
        STEPS.build(f"prune.magnitude:{bad}")


@pytest.mark.parametrize(
    "behind",
    [
        "prune.slimming:sparse_epochs=1,ratio=0.1,round_to=1,lr=0.1",
        "prune.depgraph:ratio=0.1,round_to=1,epochs=1,lr=0.1",
    ],
)
def test_zeros_stay_while_later_pruning_steps_train(behind, residual, context):
    STEPS.build("prune.magnitude:ratio=0.8,skip=conv1")(residual, context)
    before = residual.conv1.weight.detach().clone()
    STEPS.build(behind)(residual, context)
    assert residual.conv1.weight.shape != before.shape or not torch.equal(residual.conv1.weight, before)
    gone, total = zeros(residual)
    assert gone / total > 0.7


def test_zeros_survive_training_and_quantization_and_are_code_zero_in_the_file(residual, context):
    recipe = Recipe.of(
        [
            "prune.magnitude:ratio=0.8",
            "train.finetune:epochs=2,batch_size=32,lr=0.05",
            "quant.lsq:epochs=1,batch_size=32,lr=0.05",
        ]
    )
    own = {"arch": ARCH, "input": SPEC, "classes": tuple("0123456789"), "source": "net.pt"}
    model = LoadedModel(module=residual, sha256="", form="checkpoint", **own)
    pruned = apply_recipe(model, Recipe(steps=recipe.steps[:1]), context).module
    trained = apply_recipe(model, recipe, context).module
    assert not torch.equal(trained.conv1.weight, pruned.conv1.weight)
    draft = Draft(model=capture(trained, SPEC), input=SPEC)
    (file,) = int8_files(apply_graph_steps(draft, recipe, context), ("cpu",), context.train, Silent())
    codes = weight_codes(file.model)
    layers = layers_to_prune(pruned)
    assert codes.keys() == layers.keys()
    for name, layer in layers.items():
        zero = (layer.weight == 0).numpy()
        found = codes[name][tuple(map(slice, zero.shape))]  # the stem's input is padded to four channels
        assert zero.any()
        assert (trained.get_parameter(f"{name}.weight").detach().numpy()[zero] == 0).all()
        assert (found[zero] == 0).all()
        assert (found[~zero] != 0).any()


def weight_codes(model):
    """Stored integers of every layer of an int8 file, by the name of the layer."""
    graph = Graph(model)
    makers = {name: node for node in graph.nodes for name in node.output}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.name: stored[makers[node.input[1]].input[0]] for node in graph.nodes if node.op_type in {"Conv", "Gemm"}
    }


class Mixed(nn.Module):
    """Weights of three kinds: a parameter, computed in either way, of a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1)
        self.t = nn.ConvTranspose2d(4, 4, 2)
        self.new = nn.utils.parametrizations.weight_norm(nn.Linear(324, 8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.old = nn.utils.weight_norm(nn.Linear(8, 10))

    def forward(self, x):
        return self.old(self.new(self.t(self.a(x).relu()).flatten(1)).relu())


@pytest.mark.parametrize(
    "step", ["prune.magnitude:ratio=0.5", "prune.dns:epochs=1", "prune.iterative:epochs=1,rounds=1"]
)
def test_weights_that_cannot_keep_zeros_are_left_and_named(context, heard, step):
    module = Mixed().eval()
    with torch.no_grad():
        module(torch.zeros(1, 1, 8, 8))  # computes weights that can be copied
    STEPS.build(step)(module, dataclasses.replace(context, progress=heard))
    assert (module.a.weight == 0).any()
    assert (module.t.weight != 0).all()
    assert (module.old.weight_v != 0).all()
    assert any(note.startswith("t, new, old: weights computed from others") for note in heard.notes)
