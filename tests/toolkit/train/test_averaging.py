import pytest
import torch
from torch import nn

from rctk.train import LoopSettings
from rctk.train.averaging import WeightAverage, Zeros
from rctk.train.normalised import Normalised
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=1, height=1, width=1)


def one_weight(value=0.0):
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(value)
    return module


def test_an_exponential_average_of_known_weights():
    module = one_weight()
    average = WeightAverage(Normalised(module, SPEC), LoopSettings(averaging="ema", ema_decay=0.5))
    seen = []
    for value in (1.0, 2.0, 3.0):
        module.weight.data.fill_(value)
        average.after_step()
        seen.append(average.model.module.weight.item())
    # the first is taken as it is; the second keeps (1 + 1) / (10 + 1) of the past, the third (1 + 2) / (10 + 2)
    second = 2 / 11 * 1 + 9 / 11 * 2
    assert seen == pytest.approx([1.0, second, 0.25 * second + 0.75 * 3])
    assert module.weight.item() == 3


def test_swa_weighs_the_last_epochs_equally_and_measures_batchnorm_anew():
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    average = WeightAverage(Normalised(module, SPEC), LoopSettings(averaging="swa", swa_start=0.5, epochs=4))
    images = torch.tensor([0.0, 0.5, 1.0, 0.5]).reshape(4, 1, 1, 1)
    for number, value in enumerate((9.0, 9.0, 2.0, 4.0), start=1):
        module[0].weight.data.fill_(value)
        average.after_epoch(number, [images])
        if number == 2:
            assert average.model.module is module  # nothing to average yet
    shipped = average.model.module
    assert shipped[0].weight.item() == 3
    assert shipped[1].running_mean.item() == pytest.approx(1.5)  # three times the mean image
    assert shipped[1].running_var.item() == pytest.approx(9 * 1 / 6)  # nine times the variance, unbiased


def test_without_averaging_the_trained_model_itself_is_saved():
    module = one_weight(1.0)
    average = WeightAverage(Normalised(module, SPEC), LoopSettings())
    average.after_step()
    average.after_epoch(1, [])
    assert average.model.module is module
    assert average.state_dict() == {}


def test_pruned_weights_stay_zero_and_biases_that_are_zero_by_chance_move():
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    module.bias.data.zero_()
    zeros = Zeros(module)
    for parameter in module.parameters():
        parameter.data += 1
    zeros.put_back()
    assert module.weight.tolist() == [[0, 2], [3, 0]]
    assert module.bias.tolist() == [1, 1]
