"""Masks that close and open while a network trains: by hand, and on digits."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.prune.dns import Dns, Mask, refreshed
from rctk.prune.unstructured import layers_to_prune, least_kept
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def context():
    split = read_split("digits:train").sample(400, 0)
    held = np.arange(0, 400, 4)
    rest = np.setdiff1d(np.arange(400), held)
    return Context(train=split.take(rest), validation=split.take(held), input=SPEC, progress=Silent())


@pytest.fixture(scope="module")
def trained(context):
    """A net that knows most digits."""
    module = build_architecture("digits-cnn:channels=8", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return STEPS.build("train.finetune:epochs=15,lr=0.1,batch_size=32")(module, context)


def zeros(module):
    return {name: layer.weight.detach() == 0 for name, layer in layers_to_prune(module).items()}


def small_weights(module, deviations):
    """Where a weight is at most nine tenths of its layer's threshold, apart from the largest that always stay."""
    found = {}
    for name, layer in layers_to_prune(module).items():
        size = layer.weight.detach().abs()
        threshold = size.mean() + deviations * size.std(correction=0)
        ranks = size.flatten().argsort(descending=True, stable=True).argsort().view(size.shape)
        found[name] = (size <= 0.9 * threshold) & (ranks >= least_kept(size, None))
    return found


def same(one, two):
    return all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_mask_closes_below_opens_above_and_rests_between():
    weight = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    mask = Mask(weight, deviations=0, least=1)  # the mean of the magnitudes is 2.5
    assert (mask.low, mask.high) == pytest.approx((2.25, 2.75))
    mask.refresh(weight)
    assert mask.keep.tolist() == [[False, False], [True, True]]
    mask.refresh(torch.tensor([[2.5, -2.8], [-2.5, 2.2]]))
    assert mask.keep.tolist() == [[False, True], [True, False]]


def test_the_threshold_is_deviations_above_the_mean_of_magnitudes_and_never_negative():
    weight = torch.tensor([[-1.0, 3.0]])  # magnitudes have mean 2 and standard deviation 1
    assert Mask(weight, deviations=3, least=1).low == pytest.approx(0.9 * 5)
    assert Mask(weight, deviations=-1, least=1).high == pytest.approx(1.1)
    negative = Mask(weight, deviations=-3, least=1)
    negative.refresh(torch.tensor([[0.0, 1e-6]]))
    assert negative.keep.tolist() == [[False, True]]


def test_the_largest_weights_of_a_layer_are_never_masked():
    weight = torch.tensor([[1.0, -3.0, 2.0, 2.0]])
    mask = Mask(weight, deviations=100, least=2)
    mask.refresh(weight)
    assert mask.keep.tolist() == [[False, True, True, False]]


def test_what_is_masked_is_zero_and_its_gradient_is_that_of_the_zero():
    weight = nn.Parameter(torch.tensor([[0.1, 3.0], [-0.2, -4.0]]))
    mask = Mask(weight, deviations=0, least=1)
    mask.refresh(weight)
    used = mask(weight)
    assert torch.equal(used.detach(), torch.tensor([[0.0, 3.0], [0.0, -4.0]]))
    (used - 1).square().sum().backward()
    assert torch.equal(weight.grad, torch.tensor([[-2.0, 4.0], [-2.0, -10.0]]))


def test_refreshing_becomes_rare_and_ends():
    step = Dns(slowing=0.01, power=2, stop=50)
    assert step.chance(0, 1000) == 1
    assert step.chance(49, 1000) == pytest.approx(1 / 1.49**2)
    assert step.chance(50, 1000) == 0
    assert (Dns().chance(749, 1000) > 0, Dns().chance(750, 1000)) == (True, 0)


@pytest.fixture
def counted():
    """Steps behind which a mask is refreshed, with a probability of 0.3 until step 1000, while others step too."""

    def steps(seed):
        weight, other, times = nn.Parameter(torch.tensor([[1.0, 3.0]])), nn.Parameter(torch.ones(1)), []

        class Counting(Mask):
            def refresh(self, weight):
                times.append(int(self.step))
                super().refresh(weight)

        mask = Counting(weight, deviations=0, least=1)
        own, foreign = torch.optim.SGD([weight], lr=0.1), torch.optim.SGD([other], lr=0.1)
        with refreshed({"a": mask}, {"a": weight}, lambda step: 0.3 if step <= 1000 else 0.0, seed=seed):
            for _ in range(1200):
                own.step()
                foreign.step()
        own.step()
        assert int(mask.step) == 1200
        return times

    return steps


def test_masks_are_refreshed_as_often_as_the_probability_says_behind_their_own_optimizer(counted):
    times = counted(seed=0)
    assert 250 < len(times) < 350
    assert max(times) <= 1000
    assert len(times) == len(set(times))


def test_the_module_is_plain_again_with_zeros_in_it(trained, context):
    module = copy.deepcopy(trained)
    kinds = [type(part) for part in module.modules()]
    returned = STEPS.build("prune.dns:epochs=2")(module, context)
    assert returned is module
    assert [type(part) for part in module.modules()] == kinds
    assert not any(is_parametrized(part) for part in module.modules())
    assert list(module.state_dict()) == list(trained.state_dict())
    assert not module.training
    assert all(zero.float().mean() > 0.4 for zero in zeros(module).values())
    assert any("weights that are not zero" in note for note in context.progress.notes)


def test_masks_that_never_move_leave_the_zeros_of_the_start(trained, context):
    module = STEPS.build("prune.dns:stop=0,epochs=2,lr=0.05,deviations=0.5")(copy.deepcopy(trained), context)
    assert same(zeros(module), small_weights(trained, 0.5))
    assert not torch.equal(module[5].weight, trained[5].weight)


def test_what_is_not_masked_is_the_trained_weight(trained, context):
    step = STEPS.build("prune.dns:stop=0,epochs=1,lr=1e-12,deviations=0.5")
    after, zero = step(copy.deepcopy(trained), context).state_dict(), small_weights(trained, 0.5)
    for key, value in trained.state_dict().items():
        name, _, kind = key.rpartition(".")
        expected = value.masked_fill(zero[name], 0) if kind == "weight" else value
        torch.testing.assert_close(after[key], expected)


def test_masks_open_and_close_while_it_trains(trained, context):
    step = STEPS.build("prune.dns:epochs=8,lr=0.1,batch_size=32,deviations=0.5,weight_decay=0.001")
    module = step(copy.deepcopy(trained), context)
    start, end = small_weights(trained, 0.5), zeros(module)
    opened = sum(int((start[name] & ~end[name]).sum()) for name in start)
    closed = sum(int((~start[name] & end[name]).sum()) for name in start)
    assert opened > 20
    assert closed > 20


def test_it_learns_to_do_without_most_of_the_weights(trained, context):
    test = read_split("digits:test").sample(300, 0)
    x = (torch.from_numpy(test.images) - 0.3) / 0.4
    step = STEPS.build("prune.dns:deviations=2,epochs=15,lr=0.05,batch_size=32")
    module = step(copy.deepcopy(trained), context)
    found = zeros(module)
    assert sum(int(zero.sum()) for zero in found.values()) / sum(zero.numel() for zero in found.values()) > 0.9
    with torch.no_grad():
        right, before = (float((net(x).argmax(1).numpy() == test.labels).mean()) for net in (module, trained))
    assert right > before - 0.1


def test_zeros_of_an_earlier_step_stay_unless_they_may_open(trained, context):
    start = STEPS.build("prune.magnitude:ratio=0.6")(copy.deepcopy(trained), context)
    before = zeros(start)
    settings = "prune.dns:epochs=4,lr=0.1,batch_size=32,deviations=-0.5"
    kept = zeros(STEPS.build(settings)(copy.deepcopy(start), context))
    assert all((kept[name] | ~before[name]).all() for name in before)
    opened = zeros(STEPS.build(f"{settings},keep_zeros=false")(copy.deepcopy(start), context))
    assert any((before[name] & ~opened[name]).any() for name in before)


def test_an_average_of_weights_keeps_the_masks(trained, context):
    step = STEPS.build("prune.dns:epochs=2,averaging=ema,ema_decay=0.5,stop=0")
    assert same(zeros(step(copy.deepcopy(trained), context)), small_weights(trained, 1))


def test_an_objective_with_several_steps_on_each_batch_refreshes_behind_all_of_them(trained, context):
    step = STEPS.build("prune.dns:epochs=1,batch_size=100,objective=free-at:eps=8/255;replays=4")
    module = step(copy.deepcopy(trained), context)
    assert all(zero.any() for zero in zeros(module).values())


def test_a_stopped_step_goes_on_with_the_same_masks_and_the_same_result(trained, context, tmp_path, heard):
    step = Dns(epochs=6, lr=0.05, batch_size=50, slowing=0.5, stop=1000, deviations=2)
    through = step(copy.deepcopy(trained), context).state_dict()

    class Stopping(Silent):
        def note(self, text):
            if "epoch 3/" in text:
                raise KeyboardInterrupt
            super().note(text)

    with pytest.raises(KeyboardInterrupt):
        step(copy.deepcopy(trained), dataclasses.replace(context, folder=tmp_path, progress=Stopping()))
    resumed = step(copy.deepcopy(trained), dataclasses.replace(context, folder=tmp_path, progress=heard)).state_dict()
    assert heard.notes[0] == "going on after epoch 2"
    assert same(through, resumed)
    assert not list(tmp_path.iterdir())


def test_the_seed_decides_at_which_steps_masks_are_refreshed(counted):
    assert counted(seed=0) == counted(seed=0) != counted(seed=1)


def test_a_module_stays_as_it_was_when_training_is_stopped(trained, context):
    module = copy.deepcopy(trained)

    class Stopping(Silent):
        def note(self, text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dns()(module, dataclasses.replace(context, progress=Stopping()))
    assert same(module.state_dict(), trained.state_dict())
    assert not any(is_parametrized(part) for part in module.modules())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("deviations=nan", "finite number of deviations"),
        ("slowing=-1", "slowing of 0 or more, got -1"),
        ("power=inf", "power of 0 or more, got inf"),
        ("stop=-5", "stop of 0 or more, got -5"),
        ("objective=pgd-ta", "unknown training objective"),
        ("epochs=0", "epochs"),
    ],
)
def test_nonsense_is_refused(bad, words):
    with pytest.raises(OptionError, match=words):
        STEPS.build(f"prune.dns:{bad}")


def test_layers_can_be_skipped(trained, context):
    module = STEPS.build("prune.dns:skip=0+7,epochs=1")(copy.deepcopy(trained), context)
    assert [bool(zero.any()) for zero in zeros(module).values()] == [False, True, True, False]
    with pytest.raises(OptionError, match="unknown layer with weights 'fc'"):
        STEPS.build("prune.dns:skip=fc").check_ready(trained, context)
