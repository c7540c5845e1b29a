import numpy as np
import torch
import torch.nn.functional as F

from rctk.compress.step import Context
from rctk.progress import Silent
from rctk.train import TrainSettings
from rctk.train.step import train_stage
from rctk.train.to_the_end import train_to_the_end


class Forgetting:
    """Teaches the labels for one epoch, and from then on that everything is a 0."""

    eps = 0.0

    def __init__(self, steps):
        self.left = steps

    def __call__(self, model, x, y, generator):
        self.left -= 1
        return F.cross_entropy(model(x), y if self.left >= 0 else torch.zeros_like(y))


def test_the_last_epoch_stays_where_an_earlier_one_was_better(fresh, digits, spec):
    context = Context(train=digits[0].take(np.arange(1000)), validation=digits[1], input=spec, progress=Silent())
    best, last = fresh("mlp:hidden=64"), fresh("mlp:hidden=64")
    for module, run in ((best, train_stage), (last, train_to_the_end)):
        forgetting = Forgetting(steps=40)
        settings = TrainSettings(objective=forgetting, epochs=3, batch_size=25, lr=0.1, schedule="constant")
        run(module, context, settings, stage="there")

    def accuracy(module):
        x = (torch.from_numpy(digits[1].images) - 0.3) / 0.4
        return (module(x).argmax(1).numpy() == digits[1].labels).mean()

    assert accuracy(best) > 0.7
    assert accuracy(last) < 0.3
    assert not last.training


def test_every_epoch_is_told_with_the_remark(fresh, digits, spec):
    context = Context(train=digits[0].take(np.arange(100)), validation=digits[1], input=spec, progress=Silent())
    count = iter("ab")
    settings = TrainSettings(epochs=2)
    train_to_the_end(fresh(), context, settings, stage="there", remark=lambda: f"  {next(count)}")
    first, second = context.progress.notes
    assert first.startswith("there epoch 1/2  loss ")
    assert (first[-3:], second[-3:]) == ("  a", "  b")
