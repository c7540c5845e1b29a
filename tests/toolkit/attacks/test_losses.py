from __future__ import annotations

import pytest
import torch

from rctk.attacks.losses import cross_entropy, dlr, margin, negative_margin, targeted_dlr
from rctk.attacks.objectives import OBJECTIVES

LOGITS = torch.tensor([[5.0, 3.0, 1.0, 0.0, -2.0], [1.0, 4.0, 2.0, 0.0, 0.0]])
Y = torch.tensor([0, 0])
TARGET = torch.tensor([1, 2])


def test_margins_worked_by_hand():
    # image 0: 5 - 3; image 1 is misclassified: 1 - 4
    assert margin(LOGITS, Y).tolist() == [2, -3]
    assert negative_margin(LOGITS, Y, TARGET).tolist() == [-2, 3]


def test_negative_logits_are_not_mistaken_for_zero():
    assert margin(LOGITS - 50, Y).tolist() == [2, -3]


def test_dlr_worked_by_hand():
    # image 0: -(5 - 3) / (5 - 1); image 1: -(1 - 4) / (4 - 1)
    assert dlr(LOGITS, Y, TARGET).tolist() == [-0.5, 1]


def test_targeted_dlr_worked_by_hand():
    # image 0: -(5 - 3) / (5 - (1 + 0) / 2); image 1: -(1 - 2) / (4 - (1 + 0) / 2)
    torch.testing.assert_close(targeted_dlr(LOGITS, Y, TARGET), torch.tensor([-2 / 4.5, 1 / 3.5]))


def test_cross_entropy_worked_by_hand():
    logits = torch.tensor([[0.0, 0.0]])
    torch.testing.assert_close(cross_entropy(logits, Y[:1], Y[:1]), torch.log(torch.tensor([2.0])))


@pytest.mark.parametrize("loss", [dlr, targeted_dlr])
def test_ratios_do_not_depend_on_shift_and_scale(loss):
    torch.testing.assert_close(loss(100 * LOGITS - 50, Y, TARGET), loss(LOGITS, Y, TARGET))


def test_two_classes_fall_back_to_the_margin():
    assert dlr(LOGITS[:, :2], Y, TARGET).tolist() == [-2, 3]


@pytest.mark.parametrize("classes", [2, 3])
def test_targeted_dlr_of_few_classes_falls_back_to_the_targeted_margin(classes):
    assert targeted_dlr(LOGITS[:, :classes], Y, torch.tensor([1, 1])).tolist() == [-2, 3]


def test_two_equal_top_logits_give_margin_zero():
    assert margin(torch.tensor([[2.0, 2.0, 0.0]]), torch.tensor([1])).tolist() == [0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_loss_rises_when_the_margin_falls(name):
    closer = LOGITS[:1] + torch.tensor([[-0.5, 0.5, 0, 0, 0]])
    loss, aside = OBJECTIVES[name].loss, torch.tensor([1])  # the class whose logit rises, or a scale of 1
    assert loss(closer, Y[:1], aside) > loss(LOGITS[:1], Y[:1], aside)
