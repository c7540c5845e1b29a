"""Channels are followed through every kind of connection, and cut out without changing what is left."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.models.selection import select_instead_of_pad
from rctk.prune.coupling import find_couplings
from rctk.prune.evidence import Evidence
from rctk.prune.surgery import cut
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import MismatchError

SPEC = InputSpec(channels=3, height=8, width=8)


class Everything(nn.Module):
    """A concatenation, a grouped and a depthwise convolution, a residual add, and a linear layer after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.depth = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.prelu = nn.PReLU(32)
        self.back = nn.Conv2d(32, 16, 1)
        self.pool = nn.MaxPool2d(4)
        self.hidden, self.classifier = nn.Linear(64, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        both = self.norm(torch.cat([self.left(x), self.right(x)], dim=1)).relu()
        out = both + self.back(self.prelu(self.depth(self.grouped(both))))
        return self.classifier(self.hidden(self.pool(out).flatten(1)).relu())


@pytest.fixture
def everything():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Everything().eval()


def producing(module, layer):
    """Return the coupling of the channels that ``layer`` makes."""
    (found,) = [
        each
        for each in find_couplings(module, SPEC).free
        if any(member.layer == layer and member.side == "out" for member in each.members)
    ]
    return found


def test_the_classifier_stays_whole(everything):
    assert find_couplings(everything, SPEC).whole["classifier"] == "its channels are the outputs of the network"


def test_channels_run_through_every_layer_that_knows_them(everything):
    hidden = producing(everything, "hidden")
    assert {(m.layer, m.side) for m in hidden.members} == {("hidden", "out"), ("classifier", "in")}
    wide = producing(everything, "grouped")
    assert {(m.layer, m.side) for m in wide.members} == {
        ("grouped", "out"),
        ("depth", "both"),
        ("prelu", "both"),
        ("back", "in"),
    }
    assert len(wide.sets) == 8
    assert wide.sets[0] == (0, 8, 16, 24)  # the first channel of each of four groups


def test_a_flattened_channel_is_as_many_inputs_as_it_has_pixels(everything):
    for coupling in find_couplings(everything, SPEC).free:
        for member in coupling.members:
            if (member.layer, member.side) == ("hidden", "in"):
                assert all(len(places) in {0, 4} for places in member.positions)  # 2x2 pixels


def test_a_concatenation_and_an_add_couple_what_they_join(everything):
    coupling = producing(everything, "back")
    parts = {(m.layer, m.side): m.positions for m in coupling.members}
    assert parts["left", "out"] == tuple((c,) for c in range(8)) + ((),) * 8
    assert parts["right", "out"] == ((),) * 8 + tuple((c,) for c in range(8))
    assert parts["grouped", "in"] == parts["norm", "both"] == tuple((c,) for c in range(16))
    assert coupling.sets[1] == (1, 5, 9, 13)  # the grouped convolution wants the same place in each group


@pytest.mark.parametrize("name", ["grouped", "hidden"])
def test_a_cut_network_computes_what_the_masked_one_does(name, everything):
    coupling = producing(everything, name)
    gone = frozenset(coupling.sets[1]) | frozenset(coupling.sets[3])
    before = copy.deepcopy(everything)
    cut(everything, [coupling], {coupling.name: gone}, SPEC)  # which compares the two itself
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(everything(x), before(x))
    assert everything(x).shape == (3, 5)
    if name == "grouped":
        assert (everything.grouped.out_channels, everything.depth.groups, everything.back.in_channels) == (24, 24, 24)
        assert everything.grouped.groups == 4


def test_all_that_is_free_can_go_at_once(everything):
    free = find_couplings(everything, SPEC).free
    cut(everything, free, {each.name: frozenset(each.sets[0]) for each in free}, SPEC)


def test_a_wrong_cut_is_noticed(everything):
    coupling = producing(everything, "hidden")
    members = [replace(m, positions=m.positions[::-1]) if m.side == "in" else m for m in coupling.members]
    wrong = replace(coupling, members=tuple(members))
    hidden = everything.hidden
    with torch.no_grad():
        hidden.bias.uniform_(1, 2)
    with pytest.raises(MismatchError, match="the pruned network would differ from the masked one"):
        cut(everything, [wrong], {"hidden": frozenset({0, 1, 2})}, SPEC)


def test_evidence_agrees_with_a_factor_on_the_channel(everything):
    """The derivative by a factor on a channel, in closed form and by finite differences."""
    rng = np.random.default_rng(0)
    split = Split(name="r", images=rng.random((32, 3, 8, 8), dtype=np.float32), labels=np.arange(32) % 5)
    coupling = producing(everything, "hidden")
    group = Evidence(everything, split, SPEC).group(coupling, "slopes")
    x, y = torch.from_numpy(split.images).double(), torch.from_numpy(split.labels)
    twin = copy.deepcopy(everything).double()

    def loss(factor):
        trial = copy.deepcopy(twin)
        with torch.no_grad():
            trial.classifier.weight[:, 3] *= factor
            return nn.functional.cross_entropy(trial(x), y)

    numeric = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    assert group.slopes[0, 3].item() == pytest.approx(numeric.item(), rel=1e-3, abs=1e-6)


class Padded(nn.Module):
    """Pads channels in its own forward, where no submodule can be exchanged."""

    def __init__(self, block: bool) -> None:
        super().__init__()
        self.block = block
        self.conv, self.wide, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.conv(x)
        if self.block:
            x = self.wide(x) + nn.functional.pad(x, (0, 0, 0, 0, 4, 4))
            return self.fc(x.mean(dim=(2, 3)))
        return self.fc(nn.functional.pad(x.mean(dim=(2, 3)), (8, 0)))


def test_a_padded_shortcut_inside_a_forward_leaves_its_channels_whole():
    found = find_couplings(Padded(block=True).eval(), SPEC)
    assert found.free == ()
    assert set(found.whole.values()) >= {"the channels that conv sees cannot be told apart"}


def test_channels_on_a_way_that_was_misread_are_not_cut():
    module = Padded(block=False).eval()
    (coupling,) = find_couplings(module, SPEC).free
    with pytest.raises(MismatchError, match=r"would differ from the masked one .* skip=NAME"):
        cut(module, [coupling], {coupling.name: frozenset({0})}, SPEC)
    assert module.conv.out_channels == 8


def test_tracing_leaves_modes_and_frozen_parameters_alone(everything):
    everything.left.weight.requires_grad_(False)
    everything.norm.train()
    find_couplings(everything, SPEC)
    assert not everything.left.weight.requires_grad
    assert everything.norm.training
    assert not everything.left.training


def test_a_padded_shortcut_of_any_class_becomes_a_convolution_that_selects():
    class Lambda(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3))

    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Lambda(), nn.Flatten(), nn.Linear(128, 2)).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = module(x)
    assert select_instead_of_pad(module, SPEC.shape) == ["1"]
    assert torch.equal(module(x), expected)
    assert not module[1].weight.requires_grad
    assert select_instead_of_pad(module, SPEC.shape) == []
