"""Defensive distillation masks gradients and does no more: a weak attack is blinded, a strong one is not."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.audit import Examined
from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.distill.defensive import Defensive, TemperedLoss
from rctk.distill.teacher import Teacher
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.threat import ThreatModel
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8)
QUICK = "epochs=12,batch_size=32"


def fresh(arch="digits-cnn", seed=0):
    module = build_architecture(arch, classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(seed))
    return module.eval()


@pytest.fixture(scope="module")
def context():
    rows = np.random.default_rng(0).permutation(1437)
    split = read_split("digits:train")
    return Context(train=split.take(rows[:1200]), validation=split.take(rows[1200:]), input=SPEC, progress=Silent())


@pytest.fixture(scope="module")
def unseen():
    return read_split("digits:test").sample(150, 0)


@pytest.fixture(scope="module")
def trained(context):
    """What enters the step: a net that knows the digits."""
    return STEPS.build("train.finetune:epochs=10,batch_size=32,lr=0.05")(fresh(), context)


@pytest.fixture(scope="module")
def plain(trained, context):
    """The same two trainings at temperature 1."""
    return STEPS.build(f"distill.defensive:temperature=1,{QUICK}")(copy.deepcopy(trained), context)


@pytest.fixture(scope="module")
def defended(trained, context):
    return STEPS.build(f"distill.defensive:temperature=100,{QUICK}")(copy.deepcopy(trained), context)


def robust(module, split, attack):
    """Return what the judge says: the share that is right before and after the attack, within the budget."""

    def predict(x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    examined = Examined(name="float", predict=predict, model=module, split=split, threat=ThreatModel(eps=0.15))
    return examined.attacked(attack).robust_accuracy


class Divided(nn.Module):
    """The same classifier with logits divided by a number."""

    def __init__(self, module, by):
        super().__init__()
        self.module, self.by = module, by

    def forward(self, x):
        return self.module(x) / self.by


def test_the_loss_divides_logits_by_the_temperature():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 1, 8, 8, generator=generator), torch.arange(5)
    student, teacher = fresh("mlp"), fresh("mlp", seed=1)
    hard = TemperedLoss(temperature=4.0)(student, x, y, generator)
    torch.testing.assert_close(hard, F.cross_entropy(student(x) / 4, y))
    loss = TemperedLoss(temperature=4.0, teacher=Teacher.of(teacher, SPEC, name="other"))
    soft = loss(student, x, y, generator)
    aim = (teacher(x) / 4).softmax(1)
    torch.testing.assert_close(soft, -(aim * (student(x) / 4).log_softmax(1)).sum(1).mean())
    assert torch.equal(soft, loss(student, x, y.flip(0), generator))
    soft.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_logits_grow_with_the_temperature_and_input_gradients_vanish(plain, defended, unseen):
    x, y = torch.from_numpy(unseen.images).requires_grad_(), torch.from_numpy(unseen.labels)
    spread, dead = {}, {}
    for name, module in (("plain", plain), ("defended", defended)):
        logits = module(x)
        top = logits.detach().topk(2, dim=1).values
        spread[name] = float((top[:, 0] - top[:, 1]).mean())
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
        dead[name] = float((gradient.flatten(1).abs().amax(1) == 0).float().mean())
    assert spread["defended"] > 15 * spread["plain"]
    assert dead["plain"] == 0
    assert dead["defended"] > 0.5
    assert all((module(x).argmax(1) == y).float().mean() > 0.85 for module in (plain, defended))


@pytest.mark.parametrize("attack", ["fgsm", "pgd:steps=20", "apgd-ce"])
def test_an_attack_on_the_cross_entropy_sees_robustness(attack, plain, defended, unseen):
    assert robust(defended, unseen, attack) > robust(plain, unseen, attack) + 0.3


@pytest.mark.parametrize("attack", ["apgd-dlr", "cw-linf"])
def test_an_attack_on_logits_sees_none(attack, plain, defended, unseen):
    assert robust(defended, unseen, attack) < robust(plain, unseen, attack) + 0.1
    assert robust(defended, unseen, attack) < robust(defended, unseen, "fgsm") - 0.3


def test_logits_divided_by_the_temperature_give_the_cross_entropy_its_sight_back(defended, unseen):
    assert robust(Divided(defended, 100), unseen, "apgd-ce") < robust(defended, unseen, "apgd-ce") - 0.3


def test_a_run_stopped_in_either_training_goes_on_as_if_it_had_not_been(context, tmp_path):
    step = Defensive(epochs=3, batch_size=64)
    through = step(fresh("mlp:hidden=16"), replace(context, progress=Silent()))

    def stop_at(text):
        class Stopping(Silent):
            def note(self, said):
                if text in said:
                    raise KeyboardInterrupt
                super().note(said)

        with pytest.raises(KeyboardInterrupt):
            step(fresh("mlp:hidden=16"), replace(context, folder=tmp_path, progress=Stopping()))

    stop_at("teacher, epoch 2/")
    stop_at("student, epoch 3/")
    again = replace(context, folder=tmp_path, progress=Silent())
    resumed = step(fresh("mlp:hidden=16"), again)
    assert again.progress.notes[0] == "going on after epoch 2"
    assert not any("teacher" in note for note in again.progress.notes)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in through.state_dict().items())


def test_the_student_begins_as_the_module_came(context):
    """Without a step that changes anything, both are what came in."""
    module = fresh("mlp:hidden=16")
    before = copy.deepcopy(module.state_dict())
    Defensive(epochs=1, lr=1e-30)(module, replace(context, progress=Silent()))
    assert all(torch.allclose(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("temperature", ["0.5", "0", "-3", "inf", "nan"])
def test_temperatures_without_sense_are_refused(temperature):
    with pytest.raises(OptionError, match="temperature of 1 or more"):
        STEPS.build(f"distill.defensive:temperature={temperature}")
