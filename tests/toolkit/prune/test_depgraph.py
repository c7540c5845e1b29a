"""Pruning to a budget."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from rctk.checkpoint import load_model, save_checkpoint
from rctk.compress import STEPS
from rctk.models import arch_of, build_architecture
from rctk.prune.budget import Widths, choose
from rctk.prune.cost import cost
from rctk.prune.coupling import Coupling
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)
ARCHS = ("resnet20", "resnet20-b", "mobilenetv2", "vgg16-bn", "wrn-28-4")


@pytest.mark.parametrize("arch", ARCHS)
def test_a_network_is_pruned_to_its_budget_and_comes_back_from_disk(arch, network, context, images, tmp_path):
    module = network(arch)
    before = cost(module, CIFAR)
    module = STEPS.build("prune.depgraph:ratio=0.6,by=macs")(module, context)
    after = cost(module, CIFAR)
    assert 0.3 * before.macs < after.macs <= 0.4 * before.macs
    assert after.parameters < before.parameters
    assert after.size_bytes < before.size_bytes
    widths = {layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths)
    path = tmp_path / "pruned.pt"
    text = arch_of(module, arch, classes=10, input=CIFAR)
    assert text == f"pruned:{arch}"
    save_checkpoint(path, module, arch=text, input=CIFAR, classes=tuple("0123456789"))
    loaded = load_model(path)
    assert torch.equal(loaded.module(images), module(images))
    assert cost(loaded.module, CIFAR) == after


@pytest.mark.parametrize(("by", "field"), [("params", "parameters"), ("macs", "macs")])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_budget_holds_and_is_not_missed_by_far(by, field, scope, network, context):
    module = network("resnet20")
    before = getattr(cost(module, CIFAR), field)
    STEPS.build(f"prune.depgraph:ratio=0.5,by={by},scope={scope},round_to=1,min_channels=2")(module, context)
    assert 0.4 < getattr(cost(module, CIFAR), field) / before <= 0.52  # selections are counted as soon as they are made


def test_a_share_of_the_channels_goes(network, context):
    module = network("vgg16-bn")
    STEPS.build("prune.depgraph:ratio=0.5,by=channels,scope=local,round_to=1")(module, context)
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [width // 2 for width in (64, 64, 128, 128, 256, 256, 256, *(512,) * 6)]


@pytest.mark.parametrize("criterion", ["taylor", "bn-scale", "expected-abs", "hrank", "pls", "random:seed=3"])
def test_every_criterion_prunes(criterion, network, context):
    module = network("resnet20")
    step = STEPS.build(f"prune.depgraph:criterion={criterion},ratio=0.4,images=32,round_to=4,min_channels=4")
    assert cost(step(module, context), CIFAR).macs < 0.6 * 41_000_000


def test_a_dead_channel_is_the_first_to_go_and_nobody_misses_it(network, context, images):
    module = network("vgg16-bn")
    dead = [5, 17, 40, 63, 2, 3, 4, 9]
    with torch.no_grad():
        module.features[0].weight[dead] = 0
        module.features[0].bias[dead] = 0
        module.features[1].weight[dead] = 0
        module.features[1].bias[dead] = 0
    expected = module(images)
    others = "+".join(
        name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d) and name != "features.0"
    )
    step = STEPS.build(f"prune.depgraph:criterion=l1,ratio=0.125,by=channels,skip={others}")
    step(module, context)
    assert module.features[0].out_channels == 56
    torch.testing.assert_close(module(images), expected, rtol=1e-4, atol=1e-4)


def test_layers_to_skip_keep_their_channels(network, context):
    module = network("resnet20")
    STEPS.build("prune.depgraph:ratio=0.3,skip=layer3.0.conv1+conv1,round_to=4,min_channels=4")(module, context)
    assert module.layer3[0].conv1.out_channels == 64
    assert module.conv1.out_channels == module.layer1[2].conv2.out_channels == 16
    assert any("it was asked to" in note for note in context.progress.notes)


def test_rounds_with_training_between_end_in_the_same_budget(context):
    module = build_architecture("vgg16-bn", classes=10, input=CIFAR)
    before = cost(module, CIFAR).macs
    small = dataclasses.replace(context, train=context.train.sample(20, 0), validation=context.train.sample(10, 1))
    STEPS.build("prune.depgraph:ratio=0.9,rounds=2,epochs=1,round_to=16,objective=pgd-at:steps=1;eps=1/255")(
        module, small
    )
    assert cost(module, CIFAR).macs <= 0.1 * before
    assert sum("fine-tune" in note for note in context.progress.notes) == 2
    assert not module.training


def test_the_least_scores_go_in_either_scope():
    wide = Coupling(name="a", channels=4, members=(), sets=((0,), (1,), (2,), (3,)))
    narrow = Coupling(name="b", channels=2, members=(), sets=((0,), (1,)))
    scores = {"a": torch.tensor([4.0, 1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 9.0])}
    free = Widths(round_to=1, min_channels=1)
    half = choose([wide, narrow], scores, 0.5, "global", free)
    assert half == {"a": frozenset({1, 2, 3}), "b": frozenset()}
    assert choose([wide, narrow], scores, 0.5, "local", free) == {"a": frozenset({1, 2}), "b": frozenset({1})}
    assert choose([wide, narrow], scores, 1.0, "local", Widths(round_to=2, min_channels=2))["a"] == {1, 2}


def test_equal_scores_go_in_turns():
    """As those of BatchNorm gains that nobody trained; one layer is not emptied before the next."""
    alike = [
        Coupling(name=name, channels=4, members=(), sets=tuple((channel,) for channel in range(4))) for name in "ab"
    ]
    free = Widths(round_to=1, min_channels=1)
    scores = {"a": torch.ones(4), "b": torch.ones(4)}
    assert choose(alike, scores, 0.5, "global", free) == {"a": frozenset({0, 1}), "b": frozenset({0, 1})}
    assert choose(alike, scores, 1.0, "global", free) == {"a": frozenset({0, 1, 2}), "b": frozenset({0, 1, 2})}
    scores = {"a": torch.tensor([0.0, 1, 1, 1]), "b": torch.ones(4)}
    assert choose(alike, scores, 0.25, "global", free) == {"a": frozenset({0}), "b": frozenset({0})}


def test_channels_of_grouped_convolutions_go_together():
    coupling = Coupling(name="a", channels=4, members=(), sets=((0, 2), (1, 3)))
    scores = {"a": torch.tensor([0.0, 2.0, 3.0, 2.5])}  # 1.5 and 2.25 on average
    assert choose([coupling], scores, 0.5, "local", Widths(round_to=1, min_channels=1)) == {"a": frozenset({0, 2})}


def test_what_cannot_be_reached_is_said(network, context):
    with pytest.raises(OptionError, match=r"out of reach.*lower round_to or min_channels"):
        STEPS.build("prune.depgraph:ratio=0.95,min_channels=16,round_to=16")(network("resnet20"), context)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratio=1", "above 0 and below 1"),
        ("rounds=0", "rounds are 1 or more"),
        ("round_to=0", "round_to and min_channels"),
        ("criterion=l3", "unknown pruning criterion 'l3'"),
        ("objective=none", "unknown training objective"),
        ("by=time", "unknown value of prune.depgraph:by"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        STEPS.build(f"prune.depgraph:{text}")


def test_an_unknown_layer_to_skip_is_named(network, context):
    with pytest.raises(OptionError, match=r"unknown layer 'conv7'.*did you mean"):
        STEPS.build("prune.depgraph:skip=conv7")(network("resnet20"), context)


def test_a_criterion_that_finds_nothing_says_so(context):
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(OptionError, match="bn-scale finds no gains there"):
        STEPS.build("prune.depgraph:criterion=bn-scale")(module, context)


def test_an_architecture_that_is_another_one_is_refused(network):
    module = network("vgg16-bn")
    with pytest.raises(ModelError, match="does not give the layers of this module"):
        arch_of(module, "resnet20", classes=10, input=CIFAR)


def test_an_unpruned_module_keeps_its_architecture(network):
    assert arch_of(network("resnet20"), "resnet20", classes=10, input=CIFAR) == "resnet20"


def test_pruned_widths_need_weights():
    with pytest.raises(OptionError, match="reads its widths from weights"):
        build_architecture("pruned:resnet20", classes=10, input=CIFAR)


def test_a_pruned_network_can_be_pruned_again(network, context):
    module = network("resnet20")
    step = STEPS.build("prune.depgraph:ratio=0.3,round_to=4,min_channels=4")
    once = cost(step(module, context), CIFAR).macs
    again = build_architecture("pruned:resnet20", classes=10, input=CIFAR, state_dict=module.state_dict())
    again.load_state_dict(copy.deepcopy(module.state_dict()))
    assert cost(step(again.eval(), context), CIFAR).macs <= 0.7 * once
