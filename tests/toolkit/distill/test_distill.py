"""Losses of distillation against formulas worked out by hand, and the steps on digits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.checkpoint import save_checkpoint
from rctk.compress.step import Context
from rctk.data import read_split
from rctk.distill.ard import Ard, ArdLoss
from rctk.distill.kd import Kd, KdLoss
from rctk.distill.rslad import Rslad, RsladLoss
from rctk.distill.teacher import Teacher, soft_divergence, teacher_of
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

SPEC = InputSpec(channels=1, height=8, width=8)
ATTACK = {"eps": 0.1, "steps": 3, "step_size": 1.0}


class Fixed(nn.Module):
    """Answers the same logits for every image, plus a little of the image."""

    def __init__(self, logits, share=0.0):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.share = share

    def forward(self, x):
        return self.logits + self.share * x.flatten(1)[:, : len(self.logits)]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 0, 1])


def teacher(logits=(1.0, -1.0), share=0.0):
    return Teacher.of(Fixed(logits, share), SPEC, name="fixed")


# losses


def test_the_divergence_of_known_distributions():
    # softmax([ln 3, 0]) = (3/4, 1/4) against (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2
    known = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    student, aim = torch.zeros(5, 2), torch.tensor([[math.log(3), 0.0]]).expand(5, 2)
    assert float(soft_divergence(student, aim, 1.0)) == pytest.approx(known)
    assert float(soft_divergence(student, 2 * aim, 2.0)) == pytest.approx(4 * known)
    assert float(soft_divergence(aim, aim, 3.0)) == pytest.approx(0, abs=1e-7)


def test_students_and_teachers_have_the_same_classes():
    with pytest.raises(ModelError, match="teacher has 3 classes, the student 2"):
        soft_divergence(torch.zeros(1, 2), torch.zeros(1, 3), 1.0)


def test_kd_weighs_labels_and_teacher(batch):
    x, y = batch
    student = Fixed([0.5, 0.0])
    hard = F.cross_entropy(student(x), y)
    soft = soft_divergence(student(x), torch.tensor([[1.0, -1.0]] * 4), 4.0)
    losses = [
        KdLoss(teacher=teacher(), temperature=4.0, alpha=alpha)(student, x, y, torch.Generator())
        for alpha in (1.0, 0.0, 0.25)
    ]
    assert torch.allclose(torch.stack(losses), torch.stack([hard, soft, 0.25 * hard + 0.75 * soft]))


def test_kd_takes_labels_that_are_shares(batch):
    x, y = batch
    loss = KdLoss(teacher=teacher(), temperature=4.0, alpha=0.5)
    student = Fixed([0.5, 0.0])
    assert torch.allclose(loss(student, x, y, None), loss(student, x, F.one_hot(y, 2).float(), None))


def test_ard_compares_the_attacked_student_with_the_teacher_on_clean_images(batch):
    """The student's first logit grows with the first pixel, so the attack moves that pixel against the label."""
    x, y = batch
    student, aim = Fixed([0.0, 0.0], 1.0), teacher(share=1.0)
    loss = ArdLoss(**ATTACK, teacher=aim, temperature=2.0, alpha=1.0)
    moved = x.clone()
    against = torch.where(y == 0, -0.1, 0.1)
    moved.view(4, -1)[:, 0] += against
    moved.view(4, -1)[:, 1] -= against
    expected = soft_divergence(student(moved.clamp(0, 1)), aim(x), 2.0)
    assert torch.allclose(loss(student, x, y, torch.Generator().manual_seed(0)), expected)
    half = dataclasses.replace(loss, alpha=0.5)
    mixed = 0.5 * expected + 0.5 * F.cross_entropy(student(x), y)
    assert torch.allclose(half(student, x, y, torch.Generator().manual_seed(0)), mixed)


def test_rslad_knows_no_label_and_weighs_attacked_and_clean_images(batch):
    x, y = batch
    student, aim = Fixed([0.0, 0.0], 1.0), teacher(share=1.0)
    loss = RsladLoss(**ATTACK, teacher=aim, robust=1.0)
    first = loss(student, x, y, torch.Generator().manual_seed(0))
    assert torch.equal(first, loss(student, x, 1 - y, torch.Generator().manual_seed(0)))
    clean = soft_divergence(student(x), aim(x), 1.0)
    assert first > clean
    mixed = dataclasses.replace(loss, robust=5 / 6)(student, x, y, torch.Generator().manual_seed(0))
    assert torch.allclose(mixed, 5 / 6 * first + 1 / 6 * clean)


@pytest.mark.parametrize(
    "loss",
    [
        KdLoss(teacher=teacher(), temperature=4.0, alpha=0.5),
        ArdLoss(**ATTACK, teacher=teacher(), temperature=4.0, alpha=0.5),
        RsladLoss(**ATTACK, teacher=teacher(), robust=0.5),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_gradients_reach_the_student_and_never_the_teacher(loss, batch):
    student = Fixed([0.5, 0.0], 1.0)
    loss(student, *batch, torch.Generator().manual_seed(0)).backward()
    assert student.logits.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.teacher._model.parameters())
    assert not loss.teacher._model.training


def test_a_teacher_is_a_copy_in_evaluation_mode():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    taken = Teacher.of(module, SPEC, name="own")
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = taken(x)
    with torch.no_grad():
        module[1].weight.zero_()
    assert torch.equal(taken(x), before)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert Teacher.of(module, SPEC, name="own").digest != taken.digest


# steps


@pytest.fixture(scope="module")
def context():
    rows = np.random.default_rng(0).permutation(1000)
    split = read_split("digits:train")
    return Context(train=split.take(rows[:800]), validation=split.take(rows[800:]), input=SPEC, progress=Silent())


@pytest.fixture
def net():
    module = build_architecture("mlp:hidden=32,layers=1", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return module


@pytest.fixture(scope="module")
def parent(context):
    """A linear model that is right about most digits: least squares on one-hot labels."""
    x = np.c_[context.train.images.reshape(800, -1), np.ones(800)]
    solution, *_ = np.linalg.lstsq(x, 10 * np.eye(10)[context.train.labels], rcond=1e-6)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(solution[:-1].T))
        module[1].bias.copy_(torch.from_numpy(solution[-1]))
    return module


def accuracy(module, split):
    with torch.no_grad():
        return float((module(torch.from_numpy(split.images)).argmax(1).numpy() == split.labels).mean())


def test_a_student_learns_from_the_parent_alone(net, parent, context):
    """Labels have no weight, and those of the images are wrong."""
    wrong = dataclasses.replace(context.train, labels=(context.train.labels + 1) % 10)
    step = Kd(alpha=0.0, temperature=2.0, epochs=8, lr=0.1, batch_size=32)
    student = step(net, dataclasses.replace(context, train=wrong, parent=parent))
    assert accuracy(parent, context.validation) > 0.9
    assert accuracy(student, context.validation) > 0.85
    assert not student.training


@pytest.mark.parametrize("step", [Ard(temperature=2.0, eps=0.1, steps=2), Rslad(eps=0.1, steps=2)])
def test_a_student_becomes_robust_like_its_teacher(step, net, parent, context):
    step = dataclasses.replace(step, epochs=3, lr=0.1, batch_size=32)
    student = step(net, dataclasses.replace(context, parent=parent))
    assert accuracy(student, context.validation) > 0.75
    assert "under PGD" in " ".join(context.progress.notes)


def test_the_teacher_may_be_a_checkpoint(net, context, tmp_path):
    save_checkpoint(tmp_path / "t.pt", net, arch="mlp:hidden=32,layers=1", input=SPEC, classes=tuple("0123456789"))
    found = teacher_of(str(tmp_path / "t.pt"), context)
    x = torch.from_numpy(context.train.images[:4])
    assert torch.equal(found(x), net(x).detach())


def test_a_teacher_of_other_images_is_refused(net, context, tmp_path):
    other = build_architecture("mlp", classes=10, input=InputSpec(channels=1, height=4, width=4))
    spec = InputSpec(channels=1, height=4, width=4)
    save_checkpoint(tmp_path / "t.pt", other, arch="mlp", input=spec, classes=tuple("0123456789"))
    with pytest.raises(ModelError, match="takes images"):
        teacher_of(str(tmp_path / "t.pt"), context)


def test_without_a_parent_the_next_step_is_named(net, context):
    with pytest.raises(OptionError, match="give teacher=FILE"):
        Kd()(net, context)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Kd, {"temperature": 0}),
        (Kd, {"alpha": 1.5}),
        (Kd, {"epochs": 0}),
        (Ard, {"alpha": -1}),
        (Ard, {"eps": 0}),
        (Rslad, {"robust": 2}),
        (Rslad, {"steps": 0}),
    ],
)
def test_settings_without_sense_are_refused(make, settings):
    with pytest.raises(OptionError):
        make(**settings)
