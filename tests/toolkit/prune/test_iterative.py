"""Rounds of pruning and training: how much goes when, what stays, and what a stopped step goes on with."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.prune.iterative import Iterative, rescaled_dropout
from rctk.prune.unstructured import kept, layers_to_prune
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
WEIGHTS = 64 * 32 + 32 * 32 + 32 * 10


@pytest.fixture(scope="module")
def context():
    split = read_split("digits:train").sample(400, 0)
    held = np.arange(0, 400, 4)
    rest = np.setdiff1d(np.arange(400), held)
    return Context(train=split.take(rest), validation=split.take(held), input=SPEC, progress=Silent())


@pytest.fixture(scope="module")
def trained(context):
    """A net that knows most digits."""
    module = build_architecture("mlp:hidden=32", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return STEPS.build("train.finetune:epochs=15,lr=0.1,batch_size=32")(module, context)


def zeros(module):
    return [layer.weight.detach() == 0 for layer in layers_to_prune(module).values()]


class Watching(Silent):
    """Looks at the zeros of a module whenever an epoch is told."""

    def __init__(self, module):
        super().__init__()
        self.module, self.seen = module, []

    def note(self, text):
        super().note(text)
        if "epoch" in text:
            self.seen.append(zeros(self.module))


def test_geometric_rounds_remove_the_same_part_of_what_is_left():
    step = Iterative(ratio=0.875, rounds=3)
    assert [step.share(number) for number in (1, 2, 3)] == pytest.approx([1 - 1 / 2, 1 - 1 / 4, 1 - 1 / 8])


def test_cubic_rounds_remove_most_at_first():
    step = Iterative(ratio=0.8, rounds=4, schedule="cubic")
    shares = [0.8 * (1 - 27 / 64), 0.8 * (1 - 8 / 64), 0.8 * (1 - 1 / 64), 0.8]
    assert [step.share(number) for number in (1, 2, 3, 4)] == pytest.approx(shares)


@pytest.mark.parametrize("schedule", ["geometric", "cubic"])
def test_every_round_leaves_as_many_as_the_schedule_says_and_no_weight_comes_back(schedule, trained, context):
    module = copy.deepcopy(trained)
    watching = Watching(module)
    step = Iterative(ratio=0.9, rounds=3, epochs=2, lr=0.05, schedule=schedule)
    step(module, dataclasses.replace(context, progress=watching))
    assert len(watching.seen) == 6
    counts = [sum(int(zero.sum()) for zero in seen) for seen in watching.seen]
    expected = [WEIGHTS - kept(WEIGHTS, step.share(number)) for number in (1, 2, 3)]
    assert counts == [count for count in expected for _ in range(2)]
    for before, after in zip(watching.seen, [*watching.seen[1:], zeros(module)], strict=True):
        assert all((new | ~old).all() for old, new in zip(before, after, strict=True))
    assert not module.training


def test_training_between_the_rounds_wins_back_accuracy(trained, context):
    test = read_split("digits:test").sample(300, 0)
    x = (torch.from_numpy(test.images) - 0.3) / 0.4

    def right(step):
        module = STEPS.build(step)(copy.deepcopy(trained), context)
        with torch.no_grad():
            return float((module(x).argmax(1).numpy() == test.labels).mean())

    once = right("prune.magnitude:ratio=0.93")
    assert right("prune.iterative:ratio=0.93,rounds=4,epochs=4,lr=0.05") > once + 0.1


def test_it_trains_on_attacked_images_where_it_is_asked_to(trained, context, heard):
    step = STEPS.build("prune.iterative:ratio=0.5,rounds=1,objective=pgd-at:eps=8/255;steps=2,scope=local")
    module = step(copy.deepcopy(trained), dataclasses.replace(context, progress=heard))
    assert any("round 1/1 epoch 1/1" in note and "under PGD" in note for note in heard.notes)
    assert [int(zero.sum()) for zero in zeros(module)] == [64 * 32 // 2, 32 * 32 // 2, 32 * 10 // 2]


def test_dropout_drops_less_while_it_trains_by_the_root_of_what_is_left_in_front_of_it():
    module = nn.Sequential(
        nn.Dropout(0.4),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 1),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(1, 2),
    )
    module[1].weight.data = torch.tensor([[1.0, 0, 0, 0]] * 4)  # a quarter is left
    module[3].weight.data = torch.tensor([[1.0, 1, 1, 1]])
    module[5].weight.data.zero_()
    dropouts = [module[0], module[4][1]]
    with rescaled_dropout(module, layers_to_prune(module)):
        assert [each.p for each in dropouts] == [0.2, 0.2]
    assert [each.p for each in dropouts] == [0.4, 0.2]


def test_dropout_is_as_it_was_also_after_a_stop(context):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    draw_weights(module, torch.Generator().manual_seed(0))
    seen = []

    class Stopping(Silent):
        def note(self, text):
            if "epoch" in text:
                seen.append(module[3].p)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Iterative(ratio=0.75, rounds=1, scope="local")(module, dataclasses.replace(context, progress=Stopping()))
    assert seen == [0.25]
    assert module[3].p == 0.5


@pytest.mark.parametrize("where", ["round 1/3 epoch 2/2", "round 2/3 epoch 2/2", "round 3/3 epoch 1/2"])
def test_a_stopped_step_goes_on_in_its_round_with_the_same_result(where, trained, context, tmp_path, heard):
    step = Iterative(ratio=0.8, rounds=3, epochs=2, lr=0.05)
    through = step(copy.deepcopy(trained), context).state_dict()

    class Stopping(Silent):
        def note(self, text):
            if where in text:
                raise KeyboardInterrupt
            super().note(text)

    with pytest.raises(KeyboardInterrupt):
        step(copy.deepcopy(trained), dataclasses.replace(context, folder=tmp_path, progress=Stopping()))
    resumed = step(copy.deepcopy(trained), dataclasses.replace(context, folder=tmp_path, progress=heard)).state_dict()
    number, epoch = int(where[6]), int(where[16])
    assert (f"going on after round {number - 1}" in heard.notes) == (number > 1)
    assert ("going on after epoch 1" in heard.notes) == (epoch == 2)
    assert not any(f"round {earlier}/3" in note for note in heard.notes for earlier in range(1, number))
    assert all(torch.equal(value, resumed[key]) for key, value in through.items())
    assert not list(tmp_path.iterdir())


def test_what_the_last_round_cannot_do_is_refused_before_the_first(trained, context):
    with pytest.raises(OptionError, match=r"ratio 0\.999 leaves 4 of 3,392 weights"):
        STEPS.build("prune.iterative:ratio=0.999").check_ready(trained, context)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("rounds=0", "rounds must be at least 1, got 0"),
        ("epochs=0", "epochs must be at least 1, got 0"),
        ("ratio=1", "above 0 and below 1"),
        ("lr=0", "lr"),
        ("objective=pgd-ta", "unknown training objective"),
    ],
)
def test_nonsense_is_refused(bad, words):
    with pytest.raises(OptionError, match=words):
        STEPS.build(f"prune.iterative:{bad}")
