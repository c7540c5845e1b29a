from __future__ import annotations

import numpy as np
import pytest
import torch

from rctk.quantize import CALIBRATORS
from rctk.quantize.percentile import Histogram
from rctk_kernels.errors import OptionError


def fed(calibrator, *batches):
    observer = CALIBRATORS.build(calibrator).observer()
    for batch in batches:
        observer.update(torch.tensor(batch, dtype=torch.float32))
    return observer.range()


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
    up, down = Histogram(0.01), Histogram(0.01)
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
    observer = Histogram(0.001)
    for _ in range(50):
        observer.update(torch.rand(1000))
    assert observer.counts.numel() == 8192
    assert observer.counts.sum() == 50_000


@pytest.mark.parametrize("p", [50, 101])
def test_percentiles_outside_their_range_are_refused(p):
    with pytest.raises(OptionError, match="percentile"):
        CALIBRATORS.build(f"percentile:p={p}")
