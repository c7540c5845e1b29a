from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.ddn import DDN
from rctk.attacks.fmn import FMN
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

THREAT = ThreatModel(norm="l2", eps=0.8)


def generator():
    return torch.Generator().manual_seed(0)


def test_on_a_linear_classifier_it_finds_the_closed_form_distance():
    # the logits differ by x0 + 2 x1 - x2 - 3 x3 = 1.8 - 2 = -0.2; the weights have l2 length sqrt 15
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    x, y = torch.tensor([0.6, 0.6, 0.5, 0.5]).view(1, 1, 2, 2), torch.tensor([1])
    found = DDN(steps=300, rate=0.02, first=0.1, stop_in_budget=False)(net, x, y, THREAT, generator())
    assert sizes(found - x, "l2").item() == pytest.approx(0.2 / 15**0.5, rel=0.03)


def test_it_breaks_every_image_about_as_close_as_fmn(digits):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    distance = []
    for attack in (DDN(stop_in_budget=False), FMN(stop_in_budget=False)):
        found = attack(digits.robust, x, y, THREAT, generator())
        with torch.no_grad():
            assert (digits.robust(found).argmax(1) != y).all()
        distance.append(sizes(found - x, "l2"))
    assert distance[0].median() <= 1.05 * distance[1].median()


def test_a_broken_iterate_shrinks_the_radius():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    net[1].weight.data, net[1].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-1.0, 1.0])  # broken above 1
    x, y = torch.tensor([0.5]).view(1, 1, 1, 1), torch.tensor([1])
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(round(inputs[0].item(), 3)))
    DDN(steps=3, rate=0.1, first=0.2, stop_in_budget=False)(net, x, y, THREAT, generator())
    assert seen == [0.5, 0.72, 0.742, 0.766]  # 0.2 grows by a tenth with each iterate that is not broken


@pytest.mark.parametrize("settings", [{"steps": 0}, {"rate": 1.0}, {"first": 0.0}])
def test_nonsense_is_refused(settings):
    with pytest.raises(OptionError, match="ddn needs"):
        DDN(**settings)
