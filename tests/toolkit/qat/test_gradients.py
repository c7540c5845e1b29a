"""Forward values and gradients of every quantizer against values worked out by hand from the papers."""

from __future__ import annotations

import math

import pytest
import torch

from rctk.qat.bnn import SignWeight
from rctk.qat.dorefa import TanhWeight
from rctk.qat.inq import PowerWeight, exponents
from rctk.qat.kernel import learned_steps
from rctk.qat.lsq_plus import OffsetActivation
from rctk.qat.pact import ClippedActivation
from rctk.qat.quantizer import FixedActivation, LearnedActivation, LearnedWeight
from rctk.qat.twn import TernaryWeight
from rctk.qat.xnor import MeanSign

SMALL = 2.0**-10


def gradients(quantizer, values, weights=None):
    """Return values, their gradient, and those of the parameters, for the sum weighted by ``weights``."""
    x = torch.tensor(values, requires_grad=True)
    out = quantizer(x)
    total = (out * (torch.ones_like(x) if weights is None else torch.tensor(weights))).sum()
    (SMALL * total).backward()  # no relative move reaches its limit
    found = {name: p.grad / SMALL for name, p in quantizer.named_parameters()}
    if "learned.change" in found:  # of the scale itself; the parameter is its relative change
        start = quantizer.learned.start
        found = {"learned": found["learned.change"] * start} | {"offset": found.get("shift", start) * start.mean()}
    return out.detach().tolist(), (x.grad / SMALL).tolist(), {name: grad.tolist() for name, grad in found.items()}


def test_lsq_of_activations():
    quantizer = LearnedActivation(0.5, 0, 3)
    # 0.2 / 0.5 = 0.4 rounds to 0, 0.75 / 0.5 = 1.5 and 1.25 / 0.5 = 2.5 to the even 2; 9 is clipped to 3
    out, grad, of = gradients(quantizer, [[0.2, 0.75, 1.25, 9.0]])
    assert out == [[0.0, 1.0, 1.0, 1.5]]
    assert grad == [[1.0, 1.0, 1.0, 0.0]]
    # (0 - 0.4) + (2 - 1.5) + (2 - 2.5) + 3, times 1 / sqrt(4 * 3)
    assert of["learned"] == pytest.approx((-0.4 + 0.5 - 0.5 + 3) / math.sqrt(12))


def test_a_step_moves_a_learned_scale_as_the_paper_does_and_by_a_share_of_the_learning_rate_at_most():
    """SGD subtracts ``lr * gradient`` from the scale itself; large gradients take ``lr`` times its first value."""
    quantizer = LearnedActivation(0.01, 0, 255)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for upstream, expected in ((1e-3, 0.01 - 0.1 * 1e-3 * 0.4 / math.sqrt(255)), (100.0, 0.01 - 0.1 * 0.01)):
        with torch.no_grad():
            quantizer.learned.change.zero_()
        optimizer.zero_grad()
        (upstream * quantizer(torch.tensor([[0.016]]))).sum().backward()  # 1.6 steps: slope 2 - 1.6, over sqrt(255)
        optimizer.step()
        assert quantizer.steps().scale == pytest.approx(expected, rel=1e-5)


def test_weight_decay_pulls_a_learned_scale_to_its_first_value():
    scale = LearnedWeight(torch.tensor([0.5, 2.0]), 4, 3).learned
    with torch.no_grad():
        scale.change.copy_(torch.tensor([0.5, -0.5]))
    (scale().sum() * 0).backward()
    torch.optim.SGD(scale.parameters(), lr=1.0, weight_decay=0.2).step()
    assert scale().tolist() == pytest.approx([0.5 * 1.4, 2.0 * 0.6])


def test_lsq_of_weights_has_one_scale_per_row():
    quantizer = LearnedWeight(torch.tensor([1.0, 0.5]), 2, 3)
    out, grad, of = gradients(quantizer, [[0.6, -5.0, 3.0], [0.1, -0.6, 0.2]], [[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    assert out == [[1.0, -2.0, 1.0], [0.0, -0.5, 0.0]]
    assert grad == [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    share = 1 / math.sqrt(3 * 1)
    # row 0: (1 - 0.6) + 2 * -2 + 1; row 1: (0 - 0.2) + (-1 + 1.2) + (0 - 0.4)
    assert of["learned"] == pytest.approx([share * -2.6, share * -0.4], abs=1e-6)


def test_lsq_of_one_bit_weights():
    quantizer = LearnedWeight(torch.tensor(0.5), 1, 3)
    out, grad, of = gradients(quantizer, [[0.0, -0.2, 2.0]])
    assert out == [[0.5, -0.5, 0.5]]
    assert grad == [[1.0, 1.0, 0.0]]
    # slopes 1 - 0 and -1 + 0.4 inside, 1 outside
    assert of["learned"] == pytest.approx(1.4 / math.sqrt(3))


def test_lsq_agrees_with_autograd_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, 4, 5, 6, generator=generator)
    weights = torch.randn(v.shape, generator=generator)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = []
        for fused in (True, False):
            x = v.clone().to(memory_format=layout).requires_grad_()
            s = torch.tensor(0.3, requires_grad=True)
            if fused:
                out = learned_steps(x, s, -4, 3, 0.25)
            else:
                scale = s * 0.25 + (s - s * 0.25).detach()
                inside = (x / scale).clamp(-4, 3)
                out = (inside + (inside.round() - inside).detach()) * scale
            (out * weights).sum().backward()
            found.append((out.detach(), x.grad, s.grad))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
        assert torch.allclose(found[0][2], found[1][2], rtol=1e-4)


def test_lsq_plus_rounds_its_offset_to_a_step():
    quantizer = OffsetActivation(0.5, -0.6, 3)  # 0.6 / 0.5 = 1.2: the zero point is 1, the grid -0.5 .. 1
    assert (quantizer.steps().low, quantizer.steps().high) == (-1, 2)
    out, grad, of = gradients(quantizer, [[-2.0, 0.3, 5.0]])
    assert out == [[-0.5, 0.5, 1.0]]
    assert grad == [[0.0, 1.0, 0.0]]
    share = 1 / math.sqrt(3 * 3)
    # codes from the offset: 0 below, 3 above; inside round(0.6) - 0.6
    assert of["learned"] == pytest.approx(share * (0 + 0.4 + 3))
    assert of["offset"] == pytest.approx(share * 2)  # 1 outside, 0 inside


def test_pact_learns_from_what_it_clips():
    quantizer = ClippedActivation(1.5, 0, 3)
    out, grad, of = gradients(quantizer, [[0.3, 1.1, 1.5, 7.0]], [[1.0, 1.0, 2.0, 3.0]])
    assert out == [[0.5, 1.0, 1.5, 1.5]]
    assert grad == [[1.0, 1.0, 0.0, 0.0]]
    assert of["level"] == pytest.approx(5.0)


def test_pact_clips_both_sides_of_a_signed_tensor():
    out, grad, of = gradients(ClippedActivation(1.0, -2, 1), [[-9.0, 9.0]])
    assert out == [[-2.0, 1.0]]
    assert grad == [[0.0, 0.0]]
    assert of["level"] == pytest.approx(-2 + 1)


def test_dorefa_of_two_bits_has_no_zero():
    w = [0.0, math.atanh(0.5), -2.0, 2.0]
    out, grad, _ = gradients(TanhWeight(2), [w])
    top = math.tanh(2.0)
    # u = 1/2 + tanh w / (2 top): 3 u = 1.5, 2.28, 0, 3 round to 2, 2, 0, 3
    assert out[0] == pytest.approx([1 / 3, 1 / 3, -1.0, 1.0])
    assert grad[0] == pytest.approx([(1 - math.tanh(v) ** 2) / top for v in w])


def test_dorefa_without_normalisation_leaves_codes_unused():
    out, grad, _ = gradients(TanhWeight(2, normalised=False), [[0.0, math.atanh(0.5), -0.3, 2.0]])
    # u = 1/2 + tanh w / 2: 3 u = 1.5, 2.25, 1.06, 2.95 round to 2, 2, 1, 3
    assert out[0] == pytest.approx([1 / 3, 1 / 3, -1 / 3, 1.0])
    assert grad[0] == pytest.approx([1 - math.tanh(v) ** 2 for v in (0.0, math.atanh(0.5), -0.3, 2.0)])
    out, _, _ = gradients(TanhWeight(2, normalised=False), [[0.1, -0.1]])
    assert out[0] == pytest.approx([1 / 3, -1 / 3])  # the variant of Zhou et al. gives 1 and -1


def test_dorefa_of_one_bit_is_the_sign_times_the_mean():
    out, grad, _ = gradients(TanhWeight(1), [[0.0, -3.0]])
    assert out == [[1.5, -1.5]]
    assert grad == [[1.0, 1.0]]


def test_signs_of_a_binarized_net():
    out, grad, _ = gradients(SignWeight(per_channel=True).eval(), [[0.0, -0.5, 1.5]])
    assert out == [[1.0, -1.0, 1.0]]
    assert grad == [[1.0, 1.0, 0.0]]
    assert gradients(SignWeight(per_channel=True, reach=math.inf).eval(), [[1.5]])[1] == [[1.0]]


def test_latent_weights_stay_within_one():
    quantizer, weight = SignWeight(per_channel=True), torch.nn.Parameter(torch.tensor([[0.5, -3.0]]))
    quantizer(weight)
    assert weight.tolist() == [[0.5, -1.0]]


def test_xnor_scales_each_row_by_its_mean():
    out, grad, _ = gradients(MeanSign(per_channel=True), [[0.2, -0.4], [0.5, 0.0]])
    assert out[0] == pytest.approx([0.3, -0.3])
    assert out[1] == pytest.approx([0.25, 0.25])
    assert grad[0] == pytest.approx([0.5 + 0.3] * 2)  # 1 / n + alpha
    assert grad[1] == pytest.approx([0.5 + 0.25] * 2)


def test_ternary_weights():
    # mean 0.5, threshold 0.35; the mean of 0.8 and 0.9 is 0.85
    out, grad, _ = gradients(TernaryWeight(per_channel=True), [[0.1, -0.8, 0.2, 0.9]])
    assert out[0] == pytest.approx([0.0, -0.85, 0.0, 0.85])
    assert grad == [[1.0] * 4]


def test_powers_of_two_of_inq():
    assert exponents(1.0, 5) == (-6, 0)  # the paper's eight powers would need the code 128
    assert exponents(1.4, 3) == (-1, 0)
    assert exponents(1.6, 3) == (0, 1)
    quantizer = PowerWeight(torch.tensor([[1.0, 0.74, 0.76, 0.1]]), 3).eval()  # 1 and 1/2
    # 3/4 <= 0.76 is 1, 0.74 is 1/2, and 0.1 lies below 1/4
    assert quantizer(torch.tensor([[1.0, 0.74, -0.76, 0.1]])).tolist() == [[1.0, 0.5, 1.0, 0.0]]


def test_inq_quantizes_the_largest_weights_first_and_lets_them_rest():
    weight = torch.tensor([[1.0, -0.6, 0.3, 0.2]])
    quantizer = PowerWeight(weight, 4)
    latent = torch.tensor([[5.0, 5.0, 0.33, 0.2]], requires_grad=True)
    out = quantizer(latent)
    out.sum().backward()
    assert out.tolist() == [[1.0, -0.5, pytest.approx(0.33), pytest.approx(0.2)]]
    assert latent.grad.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    quantizer.after_epoch(0.25)
    assert int(quantizer(latent).detach().eq(0.25).sum()) == 1  # three quarters rest now


@pytest.mark.parametrize(
    ("how", "expected"),
    [("identity", [1.0, 1.0, 1.0]), ("clipped", [1.0, 1.0, 0.0]), ("scaled", [1 + 2.5e-4, 1 - 4e-4, 0.0])],
)
def test_gradients_through_a_given_grid(how, expected):
    # 0.25 above its code 1, and 0.4 below its code 2
    out, grad, _ = gradients(FixedActivation(1.0, 0, 3, how), [[1.25, 1.6, 8.0]])
    assert out == [[1.0, 2.0, 3.0]]
    assert grad[0] == pytest.approx(expected)
