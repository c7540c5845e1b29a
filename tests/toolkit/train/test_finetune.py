from dataclasses import replace

import numpy as np
import pytest
import torch

from rctk.compress import STEPS
from rctk.compress.step import Context, ModuleStep
from rctk.train.finetune import Finetune
from rctk.train.pgd_at import PgdAt
from rctk.train.step import state_of
from rctk_kernels.errors import OptionError


@pytest.fixture
def context(digits, spec):
    return Context(train=digits[0].take(np.arange(400)), validation=digits[1], input=spec, seed=4)


def test_a_step_is_built_from_the_text_of_a_recipe(context):
    step = STEPS.build("train.finetune:objective=pgd-at:eps=8/255;steps=7,augment=crop:padding=1+flip,epochs=3,lr=0.01")
    assert isinstance(step, Finetune)
    assert isinstance(step, ModuleStep)
    settings = step.settings(step.objective_in(context), seed=4)
    assert settings.objective == PgdAt(eps=8 / 255, steps=7)
    assert (settings.epochs, settings.lr, settings.seed, settings.keep_zeros) == (3, 0.01, 4, True)
    assert len(settings.augmentations) == 2


@pytest.mark.parametrize("bad", ["objective=pgd-ta", "objective=pgd-at:eps=9", "epochs=0", "augment=cropp", "lrr=1"])
def test_nonsense_is_refused_before_anything_is_computed(bad):
    with pytest.raises(OptionError):
        STEPS.build(f"train.finetune:{bad}")


def test_it_trains_the_module_and_its_zeros_stay(fresh, context):
    module = fresh("digits-cnn:channels=8")
    module[0].weight.data[:4] = 0
    step = STEPS.build("train.finetune:epochs=2,lr=0.1,batch_size=32")
    before = module[0].weight.detach().clone()
    trained = step(module, context)
    assert not trained.training
    assert (trained[0].weight[:4] == 0).all()
    assert not torch.equal(trained[0].weight, before)
    assert any("finetune epoch 2/2" in note for note in context.progress.notes)


def test_a_recipe_that_was_stopped_goes_on_within_the_step(fresh, context, tmp_path, heard, monkeypatch):
    step = Finetune(epochs=3, lr=0.1, batch_size=50)
    through = step(fresh("mlp:hidden=16"), context)

    context = replace(context, folder=tmp_path, progress=heard)

    def stop(text):
        if "epoch 2/" in text:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(heard, "note", stop)
        with pytest.raises(KeyboardInterrupt):
            step(fresh("mlp:hidden=16"), context)
    (state,) = tmp_path.iterdir()
    resumed = step(fresh("mlp:hidden=16"), context)
    assert heard.notes[0] == "going on after epoch 1"
    assert not state.exists()
    for key, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])


def test_other_weights_or_settings_do_not_meet_the_state_of_a_stopped_step(fresh, context, tmp_path):
    context = replace(context, folder=tmp_path)
    names = {
        state_of(step, module, context, stage=step.stage).path
        for step in (Finetune(), Finetune(lr=0.02))
        for module in (fresh("mlp:hidden=16"), fresh("mlp:hidden=16", seed=1))
    }
    assert len(names) == 4
    assert state_of(Finetune(), fresh("mlp:hidden=16"), replace(context, folder=None), stage="finetune") is None
