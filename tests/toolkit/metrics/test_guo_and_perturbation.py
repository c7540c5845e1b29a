import numpy as np
import pytest

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.metrics.guo import r_2, r_inf
from rctk.metrics.perturbation import median_norm, perturbation
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


def predict(images):
    """Class 1 where the mean is at least one half."""
    above = images.mean(axis=(1, 2, 3)) - np.float32(0.5)
    return np.stack([-above, above], axis=1)


@pytest.fixture
def result():
    means = np.array([0.2, 0.49, 0.51, 0.9, 0.3], dtype=np.float32)
    images = np.tile(means[:, None, None, None], (1, 1, 2, 2))
    split = Split(name="flat:test", images=images, labels=np.array([0, 0, 1, 1, 1]))  # the last is wrong as it is
    return evaluate(predict, split, ATTACKS.build("square:queries=30"), ThreatModel(eps=0.05), seed=0)


def test_success_is_a_share_of_the_images_that_were_right(result):
    assert result.robust.tolist() == [True, False, False, True, False]
    summary = perturbation(result)
    assert summary.success == 0.5
    assert summary.mean_linf == pytest.approx(0.05, abs=1e-6)
    assert 0.02 < summary.mean_l2 <= 0.1 + 1e-6
    assert summary.median_l2 == pytest.approx(np.median(result.l2[1:3]))
    assert summary.mean_queries == pytest.approx(result.queries[:4].mean())


def test_without_success_there_is_no_size():
    images = np.full((2, 1, 2, 2), 0.1, dtype=np.float32)
    split = Split(name="flat:test", images=images, labels=np.zeros(2, dtype=np.int64))
    summary = perturbation(evaluate(predict, split, ATTACKS.build("noise:tries=1"), ThreatModel(eps=0.01), seed=0))
    assert (summary.success, summary.mean_l2, summary.median_linf, summary.median_queries) == (0, None, None, None)


def test_r_inf_is_the_accuracy_under_one_step(result):
    assert r_inf(result) == 0.4


def test_r_2_by_hand():
    clean, broken = np.array([True, True, True, False]), np.array([True, True, False, False])
    # (0.5 + 1.5) / 4; the third was not broken, the fourth wrong as it is
    assert r_2(clean, broken, [0.5, 1.5, 7.0, 3.0]) == (0.5, 1)


def test_median_counts_failures_as_infinite_and_mistakes_as_nothing():
    clean, broken = np.array([True] * 4 + [False]), np.array([True, True, False, False, True])
    assert median_norm(clean, broken, [0.1, 0.2, 0.3, 0.4, 5.0]).value == 0.2  # of 0, 0.1, 0.2, inf, inf
    assert median_norm(clean[:4], broken[:4], [0.1, 0.2, 0.3, 0.4]).value == np.inf


def test_sizes_of_other_images_are_refused():
    yes = np.array([True, True])
    for call in (r_2, median_norm):
        with pytest.raises(OptionError, match="three times"):
            call(yes, yes, [0.1])
