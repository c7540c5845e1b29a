"""Scales by hand, on known networks, and in short runs."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.optim import optimizer as optimizers

from rctk.checkpoint import load_model, save_checkpoint
from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.models import arch_of, build_architecture
from rctk.progress import Silent
from rctk.prune.coupling import find_couplings
from rctk.prune.proximal import accelerated, accelerated_step
from rctk.prune.scales import Scale, fold, scale_blocks, scale_channels
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)
SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))


# the optimizer of the scales


def test_two_steps_worked_out_by_hand():
    values, velocity = torch.tensor([1.0, 0.05, 0.0]), torch.zeros(3)
    gradient = torch.tensor([2.0, -0.1, -3.0])
    settings = {"lr": 0.1, "gamma": 1.0, "momentum": 0.5}
    # z: 1 - 0.2 - 0.1; 0.05 + 0.01 is within 0.1 of zero; 0.3 - 0.1
    values, velocity = accelerated_step(values, velocity, gradient, **settings)
    torch.testing.assert_close(velocity, torch.tensor([-0.3, -0.05, 0.2]))
    torch.testing.assert_close(values, torch.tensor([0.55, 0.0, 0.3]))
    # z: 0.55 - 0.1; 0; 0.3 - 0.1, and the velocity goes on by half
    values, velocity = accelerated_step(values, velocity, torch.zeros(3), **settings)
    torch.testing.assert_close(velocity, torch.tensor([-0.1 - 0.15, -0.025, -0.1 + 0.1]))
    torch.testing.assert_close(values, torch.tensor([0.45 - 0.125, 0.0, 0.2]))


def test_without_penalty_and_momentum_it_is_gradient_descent():
    values, velocity = torch.tensor([0.5]), torch.tensor([0.3])
    found, _ = accelerated_step(values, velocity, torch.tensor([1.0]), lr=0.1, gamma=0.0, momentum=0.0)
    torch.testing.assert_close(found, torch.tensor([0.4]))


def test_an_optimizer_passes_over_scales_and_over_nothing_else():
    scale, weight = Scale(1, torch.ones(1)), nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([scale.values, weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    hooks = len(optimizers._global_optimizer_pre_hooks)
    with accelerated([scale], gamma=1.0, momentum=0.9):
        (2 * scale.values + 3 * weight).sum().backward()
        sgd.step()
    # z = 1 - 0.2 - 0.1 and the velocity of -0.3 goes on by 0.9; the weight has decay: 1 - 0.1 (3 + 0.5)
    torch.testing.assert_close(scale.values.detach(), torch.tensor([0.43]))
    torch.testing.assert_close(weight.detach(), torch.tensor([0.65]))
    assert len(optimizers._global_optimizer_pre_hooks) == hooks


def test_scales_of_another_network_are_left_alone():
    scale, other = Scale(1, torch.ones(1)), nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([other], lr=0.1)
    (scale.values + other).sum().backward()
    with accelerated([scale], gamma=1.0, momentum=0.9):
        sgd.step()
    assert scale.values.item() == 1
    assert scale.values.grad is not None


# scales on networks


def set_to(scales, generator):
    """Give scales any values; a third of them is 0."""
    with torch.no_grad():
        for scale in scales.values():
            scale.values.copy_(torch.rand(len(scale.values), generator=generator) * 2)
            scale.values[torch.rand(len(scale.values), generator=generator) < 1 / 3] = 0


@pytest.mark.parametrize("arch", ["resnet20", "resnet18", "wrn-28-4", "mobilenetv2"])
def test_the_scale_of_a_block_multiplies_its_branch_and_folds_exactly(arch, network, images):
    module = network(arch)
    expected = module(images)
    scales = scale_blocks(module, CIFAR)
    assert len(scales) >= 5
    assert torch.equal(module(images), expected)
    set_to(scales, torch.Generator().manual_seed(3))
    scaled = module(images)
    assert not torch.allclose(scaled, expected)
    fold(module)
    assert set(module.state_dict()) == set(network(arch).state_dict())
    torch.testing.assert_close(module(images), scaled, rtol=0, atol=1e-4)
    gone = [name for name, scale in scales.items() if not scale.values.any()]
    assert gone
    for name in gone:
        module.set_submodule(name, nn.Identity())
    torch.testing.assert_close(module(images), scaled, rtol=0, atol=1e-4)


class Curved(nn.Module):
    """A block that is the identity also where only the layer in front of its curved function is silent."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.last(nn.functional.silu(self.first(x)))


def test_half_a_branch_is_half_of_what_it_adds():
    module = nn.Sequential(Curved(), nn.Flatten(), nn.Linear(64, 10))
    draw_weights(module, torch.Generator().manual_seed(0))
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    added = module[0](x) - x
    scales = scale_blocks(module, SPEC)
    with torch.no_grad():
        scales["0"].values.fill_(0.5)
    torch.testing.assert_close(module[0](x), x + 0.5 * added)


@pytest.mark.parametrize("arch", ["resnet20-b", "vgg16-bn", "mobilenetv2", "wrn-28-4"])
def test_a_scale_of_zero_is_a_channel_that_no_layer_reads(arch, network, images):
    module = network(arch)
    expected = module(images)
    couplings = find_couplings(module, CIFAR).free
    scales = scale_channels(module, couplings)
    assert torch.equal(module(images), expected)
    set_to(scales, torch.Generator().manual_seed(3))
    scaled = module(images)
    assert not torch.allclose(scaled, expected)
    fold(module)
    torch.testing.assert_close(module(images), scaled, rtol=0, atol=1e-4)
    for coupling in couplings:
        zero = [s for s, value in enumerate(scales[coupling.name].values.tolist()) if value == 0]
        assert zero
        for member in coupling.members:
            places = [p for s in zero for c in coupling.sets[s] for p in member.positions[c]]
            if member.side == "out":
                with torch.no_grad():
                    module.get_submodule(member.layer).weight[places] *= 1.5
    torch.testing.assert_close(module(images), scaled, rtol=0, atol=1e-4)


def test_scales_reach_the_layers_that_read_two_couplings():
    """A concatenation of two convolutions is read by one layer."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 3, 1, bias=False)
            self.out = nn.Conv2d(5, 2, 1, bias=False)

        def forward(self, x):
            return self.out(torch.cat([self.a(x), self.b(x)], dim=1)).mean((2, 3))

    module = Two()
    draw_weights(module, torch.Generator().manual_seed(0))
    before = module.out.weight.detach().clone()
    scales = scale_channels(module, find_couplings(module, SPEC).free)
    with torch.no_grad():
        scales["a"].values.copy_(torch.tensor([2.0, 3.0]))
        scales["b"].values.copy_(torch.tensor([0.0, 5.0, 7.0]))
    fold(module)
    torch.testing.assert_close(module.out.weight, before * torch.tensor([2.0, 3.0, 0.0, 5.0, 7.0]).view(1, 5, 1, 1))


# the step


@pytest.fixture(scope="module")
def digits():
    split = read_split("digits:train").sample(400, 0)
    return Context(train=split, validation=split.sample(100, 1), input=SPEC)


@pytest.fixture
def residual():
    module = build_architecture("resnet20-b:depth=14", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return module.eval()


def notes_of(context):
    return " | ".join(context.progress.notes)


@pytest.mark.parametrize(("structures", "gamma"), [("blocks", 0.2), ("channels", 0.05)])
def test_structures_at_zero_go_and_the_rest_classifies(structures, gamma, residual, digits, tmp_path):
    context = dataclasses.replace(digits, progress=Silent())
    weights = sum(each.numel() for each in residual.parameters())
    small = STEPS.build(f"prune.sss:structures={structures},gamma={gamma},epochs=10,batch_size=32")(residual, context)
    assert sum(each.numel() for each in small.parameters()) < 0.9 * weights
    assert f"{structures} go: their scales are zero" in notes_of(context)
    x = (torch.from_numpy(digits.train.images) - 0.3) / 0.4
    with torch.no_grad():
        assert (small(x).argmax(1).numpy() == digits.train.labels).mean() > 0.5
    assert not any("scale" in name or "parametrizations" in name for name in small.state_dict())
    arch = arch_of(small, "resnet20-b:depth=14", classes=10, input=SPEC)
    save_checkpoint(tmp_path / "a.pt", small, arch=arch, input=SPEC, classes=tuple("0123456789"))
    torch.testing.assert_close(load_model(tmp_path / "a.pt").module(x), small(x))


@pytest.mark.parametrize("structures", ["blocks", "channels"])
def test_where_no_scale_is_zero_the_next_step_is_named(structures, residual, digits):
    context = dataclasses.replace(digits, progress=Silent())
    small = STEPS.build(f"prune.sss:structures={structures},gamma=0,epochs=1")(residual, context)
    assert "so nothing goes; raise gamma (now 0) or epochs" in notes_of(context)
    assert sum(isinstance(layer, nn.Identity) for layer in small.layer2) == 0


def test_a_layer_keeps_a_channel_where_all_scales_are_zero(residual, digits):
    context = dataclasses.replace(digits, progress=Silent())
    small = STEPS.build("prune.sss:structures=channels,gamma=1000,epochs=2,batch_size=32")(residual, context)
    assert "so that each layer keeps one and the network is lost; lower gamma (now 1000)" in notes_of(context)
    assert {layer.out_channels for layer in small.modules() if isinstance(layer, nn.Conv2d)} == {1}
    assert small(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_padded_shortcuts_keep_the_channels_that_they_read(digits):
    module = build_architecture("resnet20:depth=8", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    context = dataclasses.replace(digits, progress=Silent())
    small = STEPS.build("prune.sss:structures=channels,gamma=1000,epochs=2,batch_size=32")(module.eval(), context)
    assert "keeps its channels: a zero-padded shortcut reads them" in notes_of(context)
    assert small.layer1[0].conv1.out_channels == 1
    assert small.layer1[0].conv2.out_channels == 16


def test_weights_that_hooks_compute_are_refused_before_anything_runs(digits):
    with pytest.warns(FutureWarning):
        module = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 10)))
    with pytest.raises(OptionError, match=r"1: .*build the network with torch\.nn\.utils\.parametrizations"):
        STEPS.build("prune.sss:structures=channels").check_ready(module, digits)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(residual, digits, tmp_path):
    step = STEPS.build("prune.sss:gamma=0.2,epochs=6,batch_size=32")
    through = step(copy.deepcopy(residual), dataclasses.replace(digits, progress=Silent()))

    class Stopping(Silent):
        def note(self, text):
            if "epoch 4/" in text:
                raise KeyboardInterrupt
            super().note(text)

    hooks = len(optimizers._global_optimizer_pre_hooks)
    with pytest.raises(KeyboardInterrupt):
        step(copy.deepcopy(residual), dataclasses.replace(digits, folder=tmp_path, progress=Stopping()))
    assert len(optimizers._global_optimizer_pre_hooks) == hooks
    context = dataclasses.replace(digits, folder=tmp_path, progress=Silent())
    resumed = step(residual, context)
    assert context.progress.notes[0] == "going on after epoch 3"
    assert list(resumed.state_dict()) == list(through.state_dict())
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in through.state_dict().items())


def test_a_network_without_such_blocks_is_refused_before_anything_runs(network, context):
    step = STEPS.build("prune.sss")
    with pytest.raises(OptionError, match="no blocks of this network can have scales; try structures=channels"):
        step.check_ready(network("vgg16-bn"), context)
    with pytest.raises(OptionError, match="try structures=channels"):
        step(network("vgg16-bn"), context)
    step.check_ready(network("resnet20"), context)


@pytest.mark.parametrize(
    ("settings", "words"),
    [("gamma=-1", "gamma of 0 or more"), ("averaging=ema", "averages are not"), ("objective=pgd-ta", "unknown")],
)
def test_settings_without_sense_are_refused(settings, words):
    with pytest.raises(OptionError, match=words):
        STEPS.build(f"prune.sss:{settings}")
