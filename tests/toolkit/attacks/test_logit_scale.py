from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.logit_scale import RHO, hns_scale, njs_scale, scaled_cross_entropy
from rctk.attacks.pgd import PGD
from rctk.attacks.pgd_hns import PGDHNS
from rctk.attacks.pgd_njs import PGDNJS
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

EPS = ThreatModel(eps=0.1)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


class Loud(nn.Module):
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        return self.scale * self.model(x)


def robust(model, found, y):
    with torch.no_grad():
        return int((model(found).argmax(1) == y).sum())


def linear(weight, bias):
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, len(weight)))
    net[1].weight.data, net[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    return net


def test_njs_brings_the_mean_singular_value_to_one():
    # singular values 4 and 2: the scale is 1/3, and the softmax of logits (0.1, 0) is not sure
    net = linear([[4.0, 0.0], [0.0, 2.0]], [0.0, 0.1])
    scale = njs_scale(net, torch.tensor([[[[0.1, 0.1]]]]), torch.tensor([0]))
    torch.testing.assert_close(scale, torch.tensor([1 / 3]))


def test_njs_leaves_the_wrong_classes_their_share_where_the_softmax_is_sure():
    net = linear([[4.0, 0.0], [0.0, 2.0]], [300.0, 0.0])
    x, y = torch.tensor([[[[0.1, 0.1]]]]), torch.tensor([0])
    scaled = net(x) * njs_scale(net, x, y)[:, None]
    assert 1 - scaled.softmax(1)[0, 0].item() == pytest.approx(RHO, rel=1e-3)


def test_hns_maximises_the_norm_of_the_hessian(digits, batch):
    x, y = batch[0][:3], batch[1][:3]
    chosen = hns_scale(digits.plain, x, y)

    def norm(row, scale):
        def loss(image):
            return F.cross_entropy(scale * digits.plain(image[None]), y[row : row + 1])

        return torch.autograd.functional.hessian(loss, x[row]).norm().item()

    for row in range(3):
        best = norm(row, chosen[row])
        others = [norm(row, factor * chosen[row]) for factor in (0.3, 0.7, 1.4, 3.0)]
        assert best > 0
        assert best >= max(others)


def test_hns_of_two_classes_is_the_known_optimum():
    # H = b^2 p (1 - p) w w^T with p = sigmoid(b d): the maximum over t = b d of t^2 / cosh(t/2)^2 is at t = 2.3994
    net = linear([[1.0, 0.0], [0.0, 0.0]], [0.4, 0.0])
    scale = hns_scale(net, torch.tensor([[[[0.1, 0.1]]]]), torch.tensor([0]))
    assert scale.item() * 0.5 == pytest.approx(2.3994, rel=0.07)  # neighbours on the grid are 12 % apart
    t = 2.3994
    assert t * math.tanh(t / 2) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("name", ["njs", "hns"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_the_model_does_not_matter_where_it_ruins_the_cross_entropy(digits, batch, name, scale):
    x, y = batch
    attack = ATTACKS.build(f"pgd-{name}")
    same = robust(digits.plain, attack(digits.plain, x, y, EPS, generator()), y)
    found = attack(Loud(digits.plain, scale), x, y, EPS, generator())
    assert abs(robust(digits.plain, found, y) - same) <= 1
    if scale == 1e3:
        plain = PGD(steps=20, step_size=0.25)(Loud(digits.plain, scale), x, y, EPS, generator())
        assert robust(digits.plain, plain, y) > same + 20


def test_hns_is_no_weaker_than_the_cross_entropy_of_an_honest_model(digits, batch):
    x, y = batch
    hns = robust(digits.robust, PGDHNS()(digits.robust, x, y, EPS, generator()), y)
    plain = robust(digits.robust, PGD(steps=20, step_size=0.25)(digits.robust, x, y, EPS, generator()), y)
    assert hns <= plain


def test_the_scaled_loss_is_the_cross_entropy_of_scaled_logits():
    logits, y = torch.tensor([[3.0, 1.0, -1.0], [0.0, 2.0, 1.0]]), torch.tensor([0, 2])
    out = scaled_cross_entropy(logits, y, torch.tensor([2.0, 0.5]))
    expected = F.cross_entropy(torch.tensor([[6.0, 2, -2], [0, 1, 0.5]]), y, reduction="none")
    torch.testing.assert_close(out, expected)


def test_the_jacobian_is_taken_once_and_of_ten_classes_at_most(batch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 30))
    x = batch[0][:5]
    with torch.no_grad():
        y = net(x).argmax(1)
    model = CountedModel(net)
    PGDNJS(steps=1)(model, x, y, ThreatModel(eps=1e-6), generator())
    assert (model.forward_images, model.backward_images) == (5 * 3, 5 * 11)


def test_zero_gradients_give_finite_scales(batch):
    class Flat(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :4] + torch.tensor([1.0, 2.0, 3.0, 4.0])

    for scale in (njs_scale, hns_scale):
        assert torch.isfinite(scale(Flat(), batch[0][:4], batch[1][:4])).all()


def test_every_loss_runs_in_pgd_and_in_auto_pgd(digits, batch):
    x, y = batch
    for loss in ("dlr-t", "njs", "hns", "margin"):
        for attack in (f"pgd:steps=10,loss={loss}", f"apgd-ce:steps=10,loss={loss}"):
            found = ATTACKS.build(attack)(copy.deepcopy(digits.plain), x, y, EPS, generator())
            assert robust(digits.plain, found, y) < 65
    assert PGDNJS().loss == "njs"
    with pytest.raises(OptionError, match="pgd-hns:loss must be one of ce, margin, dlr, dlr-t, njs, hns, got 'x'"):
        PGDHNS(loss="x")
