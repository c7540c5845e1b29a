"""Robust self-training: which images, with whose labels, in which numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rctk.checkpoint import save_checkpoint
from rctk.compress import STEPS
from rctk.compress.kept import next_key
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.train import draw_weights
from rctk.train.rst import Rst, half_and_half, unseen
from rctk.train.trades import Trades
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError, ModelError, OptionError

QUICK = {"steps": 2, "eps": 0.1, "batch_size": 50, "lr": 0.1}


@pytest.fixture
def context(digits, spec):
    """60 labelled images."""
    train, held = digits[0].take(np.arange(60)), digits[1]
    return Context(train=train, validation=held, input=spec, progress=Silent())


@pytest.fixture
def extra(digits, tmp_path):
    """800 other images, whose labels say nothing."""
    images = digits[0].images[60:860]
    np.savez(tmp_path / "extra.npz", images=images, labels=np.zeros(len(images), dtype=np.int64))
    return f"{tmp_path}/extra.npz"


@pytest.fixture(scope="module")
def parent(digits, spec, fresh, run):
    """A net that knows the digits."""
    module = fresh("mlp:hidden=64")
    run(module, digits, epochs=8)
    return module


def accuracy(module, split):
    with torch.no_grad():
        logits = module((torch.from_numpy(split.images) - 0.3) / 0.4)
    return float((logits.argmax(1).numpy() == split.labels).mean())


def split_of(values, labels, name="some"):
    images = np.asarray(values, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), dtype=np.float32)
    return Split(name=name, images=images, labels=np.asarray(labels))


def test_the_fewer_images_are_repeated_until_there_are_as_many():
    few, many = split_of([0.1, 0.2, 0.3], [0, 1, 2]), split_of(np.linspace(0.4, 1, 7), [5] * 7, "others")
    for one, two in ((few, many), (many, few)):
        both = half_and_half(one, two, seed=0)
        assert len(both) == 14
        assert (both.labels == 5).sum() == 7
        counts = np.unique(both.images[both.labels < 5, 0, 0, 0], return_counts=True)[1]
        assert sorted(counts.tolist()) == [2, 2, 3]
        assert len(np.unique(both.images[both.labels == 5])) == 7
    assert half_and_half(few, many, seed=0).name == "some and others"
    assert half_and_half(few, many, seed=0).fingerprint == half_and_half(few, many, seed=0).fingerprint
    drawn = {half_and_half(few, many, seed=seed).fingerprint for seed in range(5)}
    assert len(drawn) > 1


def test_training_and_validation_images_are_no_extra_ones(spec):
    context = Context(train=split_of([0.1], [0]), validation=split_of([0.2], [0]), input=spec, progress=Silent())
    left = unseen(split_of([0.2, 0.3, 0.1, 0.4], [0] * 4), context)
    assert left.images[:, 0, 0, 0].tolist() == [np.float32(0.3), np.float32(0.4)]
    assert context.progress.notes == [
        "2 of 4 images of some are left out: they are training or validation images already"
    ]
    with pytest.raises(DataError, match="every image of some is a training or validation image already; name others"):
        unseen(split_of([0.2, 0.1], [0, 0]), context)


def test_extra_images_get_the_labels_of_the_teacher(fresh, parent, context, extra, digits):
    """60 labelled images alone give less; the labels in the file are all 0."""
    context = replace(context, parent=parent)
    alone = STEPS.build("train.finetune:objective=trades:steps=2;eps=0.1,epochs=30,batch_size=50,lr=0.1")(
        fresh("mlp:hidden=64", seed=1), context
    )
    taught = Rst(extra=extra, epochs=3, **QUICK)(fresh("mlp:hidden=64", seed=1), context)
    assert not taught.training
    assert accuracy(taught, digits[1]) > accuracy(alone, digits[1]) + 0.05
    assert "under PGD" in " ".join(context.progress.notes)


def test_the_teacher_may_be_a_file(fresh, parent, context, extra, spec, tmp_path):
    save_checkpoint(tmp_path / "t.pt", parent, arch="mlp:hidden=64", input=spec, classes=tuple("0123456789"))
    step = Rst(extra=extra, teacher=str(tmp_path / "t.pt"), epochs=2, **QUICK)
    from_file = step(fresh("mlp:hidden=64", seed=1), replace(context, parent=fresh("mlp:hidden=64")))
    default = replace(step, teacher="")(fresh("mlp:hidden=64", seed=1), replace(context, parent=parent))
    assert all(torch.equal(value, default.state_dict()[key]) for key, value in from_file.state_dict().items())


def test_it_minimises_trades_with_the_given_settings(context, extra):
    step = Rst(extra=extra)
    assert step.objective_in(context) == Trades()
    assert step.objective_in(context).beta == 6
    step = STEPS.build(f"train.rst:extra={extra},beta=1,eps=0.2,steps=3,step_size=0.5,attack_mode=train")
    assert step.objective_in(context) == Trades(beta=1, eps=0.2, steps=3, step_size=0.5, attack_mode="train")


def test_a_stopped_run_goes_on_as_if_it_had_not_been(fresh, parent, context, extra, tmp_path):
    step = Rst(extra=extra, epochs=3, **QUICK)
    context = replace(context, parent=parent)
    through = step(fresh("mlp:hidden=16"), context)

    class Stopping(Silent):
        def note(self, text):
            if "epoch 2/" in text:
                raise KeyboardInterrupt
            super().note(text)

    folder = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        step(fresh("mlp:hidden=16"), replace(context, folder=folder, progress=Stopping()))
    again = replace(context, folder=folder, progress=Silent())
    resumed = step(fresh("mlp:hidden=16"), again)
    assert "going on after epoch 1" in again.progress.notes
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in through.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("extra=", "write extra=NAME:SPLIT"),
        ("extra=digits", "write digits:train"),
        ("extra=digits:train,beta=-1", "beta must be"),
        ("extra=digits:train,eps=8", "write 8/255"),
        ("extra=digits:train,epochs=0", "at least 1"),
    ],
)
def test_settings_without_sense_are_refused_with_the_recipe(settings, words):
    with pytest.raises((OptionError, DataError), match=words):
        Recipe.of([f"train.rst:{settings}"])


def test_missing_images_are_refused_before_anything_runs(fresh, parent, context, tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*none\.npz"):
        Rst(extra=f"{tmp_path}/none.npz").check_ready(fresh("mlp"), replace(context, parent=parent))


def test_a_teacher_that_does_not_fit_is_refused_before_anything_runs(fresh, context, extra, spec):
    step = Rst(extra=extra)
    with pytest.raises(OptionError, match="give teacher=FILE"):
        step.check_ready(fresh("mlp"), context)
    other = build_architecture("mlp", classes=7, input=spec)
    draw_weights(other, torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="the teacher has 7 classes, the module 10"):
        step.check_ready(fresh("mlp"), replace(context, parent=other))


def test_extra_images_of_another_shape_are_refused(fresh, parent, extra, digits):
    spec = InputSpec(channels=1, height=4, width=4)
    small = replace(digits[0], images=digits[0].images[:, :, :4, :4])
    context = Context(train=small, validation=small, input=spec, parent=parent)
    with pytest.raises(DataError, match="images are 1x8x8"):
        Rst(extra=extra).check_ready(build_architecture("mlp", classes=10, input=spec), context)


def test_a_finished_step_is_not_taken_for_one_with_other_images(digits, tmp_path):
    (named,) = Recipe.of([f"train.rst:extra={tmp_path}/extra.npz"]).steps
    keys = []
    for rows in (40, 40, 41):
        np.savez(tmp_path / "extra.npz", images=digits[0].images[:rows], labels=digits[0].labels[:rows])
        keys.append(next_key("before", named))
    assert keys[0] == keys[1] != keys[2]
