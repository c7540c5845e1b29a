from __future__ import annotations

import numpy as np
import pytest
import torch

from rctk.quantize import CALIBRATORS
from rctk.quantize.calibrate import Images, calibrate
from rctk.quantize.entropy import divergence
from rctk.quantize.histogram import SAMPLE
from rctk.quantize.percentile import PercentileObserver
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError


def fed(calibrator, *batches):
    observer = CALIBRATORS.build(calibrator).observer()
    for batch in batches:
        observer.update(torch.tensor(batch, dtype=torch.float32))
    return observer.range()


NORMAL = torch.randn(200_000, generator=torch.Generator().manual_seed(0))


def of_normal(calibrator, bits=8):
    observer = CALIBRATORS.build(calibrator).observer(bits)
    for part in NORMAL.split(10_000):
        observer.update(part)
    return observer.range()


@pytest.mark.parametrize("name", CALIBRATORS.names())
def test_every_calibrator_stays_inside_what_it_saw_and_keeps_zeros(name):
    low, high = of_normal(name)
    assert float(NORMAL.min()) <= low < 0 < high <= float(NORMAL.max())
    assert fed(name, [0.0, 0.0]) == (0.0, 0.0)
    assert fed(name, [0.0] * 9 + [2.0], [0.0, 1.0])[0] == 0


@pytest.mark.parametrize("name", CALIBRATORS.names())
def test_every_calibrator_hands_on_what_is_not_finite(name):
    low, high = fed(name, [0.0, float("inf")])
    assert not np.isfinite(high - low)


@pytest.mark.parametrize("name", CALIBRATORS.names())
def test_state_of_every_calibrator_does_not_grow(name):
    observer = CALIBRATORS.build(name).observer()
    sizes = set()
    for _ in range(4):
        observer.update(torch.rand(3 * SAMPLE))
        sizes.add(sum(v.numel() for v in vars(observer).values() if isinstance(v, torch.Tensor)))
    assert len(sizes) == 1


def test_moving_average_by_hand():
    # 0.5 * 2 + 0.5 * 4 = 3, then 0.5 * 3 + 0.5 * 1 = 2
    assert fed("moving-average:weight=0.5", [0.0, 2.0], [-1.0, 4.0], [0.0, 1.0]) == (-0.25, 2.0)


def test_mse_of_a_normal_distribution_at_4_bits_is_the_known_optimum():
    # the best uniform quantizer of 16 levels for N(0, 1) has steps of 0.335 and so reaches 7.5 steps (Max, 1960)
    low, high = of_normal("mse", bits=4)
    assert high - low == pytest.approx(0.335 * 15, rel=0.05)


def test_mse_keeps_everything_where_the_width_allows_it():
    assert fed("mse", list(np.linspace(0, 1, 256)))[1] == pytest.approx(1.0)


def test_entropy_clips_an_outlier_and_keeps_an_even_distribution():
    values = torch.rand(60_000, generator=torch.Generator().manual_seed(0))
    even = CALIBRATORS.build("entropy").observer()
    even.update(values)
    assert even.range()[1] > 0.95
    outlier = CALIBRATORS.build("entropy").observer()
    outlier.update(torch.cat([values, torch.tensor([20.0])]))
    assert outlier.range()[1] < 5


def test_divergence_by_hand():
    # P = (1/4, 3/4); one level of two filled bins makes Q = (1/2, 1/2): 1/4 ln 1/2 + 3/4 ln 3/2
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert divergence(np.array([1.0, 3.0]), 2, 1) == pytest.approx(expected)
    # clipping at bin 1: P counts the tail into the last bin, Q does not know it; both are one bin
    assert divergence(np.array([1.0, 3.0]), 1, 1) == 0


def test_large_batches_are_sampled_but_extremes_are_not():
    values = torch.zeros(5 * SAMPLE)
    values[1] = 7.0
    observer = PercentileObserver(0)
    observer.update(values)
    assert observer.seen.range() == (0, 7)
    assert observer.counts.sum() == SAMPLE


def test_adversarial_calibration_images_stay_in_their_budget_and_mix_changes_every_other_one():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    model = capture(module.eval(), InputSpec(channels=1, height=4, width=4))
    images = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)

    def seen(kind):
        changed = []

        class Keep:
            def observer(self, bits=8):
                return self

            def update(self, values):
                changed.append(values.clone())

            def range(self):
                return 0.0, 1.0

        calibrate(model, ["images"], images, Keep(), kind=Images(kind=kind, eps=0.1))
        return np.abs(torch.cat(changed).numpy() - images).max(axis=(1, 2, 3))

    assert seen("clean").max() == 0
    assert seen("adv") == pytest.approx(np.full(6, 0.1), abs=1e-6)
    assert seen("mix") == pytest.approx(np.array([0.1, 0] * 3), abs=1e-6)


def test_minmax_keeps_the_extremes_of_all_batches():
    assert fed("minmax", [0.0, 2.0], [-1.5, 1.0]) == (-1.5, 2.0)


def test_percentile_of_a_normal_distribution_is_its_quantile():
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    observer = CALIBRATORS.build("percentile:p=99").observer()
    for part in values.split(10_000):
        observer.update(part)
    low, high = observer.range()
    expected = np.quantile(values.numpy(), [0.005, 0.995])
    assert [low, high] == pytest.approx(expected, abs=0.01)


def test_percentile_does_not_depend_on_the_order_in_which_the_span_grew():
    values = torch.linspace(-1, 3, 40_001)
    up, down = PercentileObserver(0.01), PercentileObserver(0.01)
    for part in values.abs().sort().values.split(5000):
        up.update(part)
    for part in values.abs().sort(descending=True).values.split(5000):
        down.update(part)
    assert up.range()[1] == pytest.approx(down.range()[1], abs=2e-3)


def test_percentile_never_leaves_what_was_seen():
    assert fed("percentile:p=100", [0.0, 0.5, 0.7]) == pytest.approx((0.0, 0.7))


def test_a_rectified_tensor_keeps_zero_as_its_lower_end():
    assert fed("percentile:p=99", [0.0] * 50 + list(np.linspace(0, 1, 50)))[0] == 0


def test_a_tensor_of_zeros_has_the_range_zero():
    assert fed("percentile", [0.0, 0.0]) == (0.0, 0.0)


def test_memory_does_not_grow_with_the_number_of_values():
    observer = PercentileObserver(0.001)
    for _ in range(50):
        observer.update(torch.rand(1000))
    assert observer.counts.numel() == 8192
    assert observer.counts.sum() == 50_000


@pytest.mark.parametrize("p", [50, 101])
def test_percentiles_outside_their_range_are_refused(p):
    with pytest.raises(OptionError, match="percentile"):
        CALIBRATORS.build(f"percentile:p={p}")
