from __future__ import annotations

import numpy as np
import pytest

from rctk.evaluation.repeatability import repeatability
from rctk_kernels.errors import DataError, EngineError, OptionError


class Moody:
    """Answers with logits that swing by ``swing`` for the first image only."""

    def __init__(self, swing):
        self.swing, self.calls = swing, 0

    def __call__(self, images):
        self.calls += 1
        logits = np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(images), 1))
        logits[0, 1] = self.swing * (self.calls % 2)
        return logits


IMAGES = np.zeros((4, 1, 2, 2), dtype=np.float32)


def test_an_engine_that_answers_the_same_is_deterministic(linear, make_split):
    result = repeatability(linear, make_split(linear).images, repeats=3, batch_size=7)
    assert result.deterministic
    assert result.largest_distance == 0
    assert result.sentence() == "3 passes over 40 images gave the same classes"


def test_a_changed_class_is_counted_and_its_distance_measured_by_hand():
    result = repeatability(Moody(2.0), IMAGES)
    assert result.changed.tolist() == [True, False, False, False]
    assert result.changed_share[:2] == (1, 4)
    # (1, 0) against (1, 2) / sqrt 5
    assert result.largest_distance == pytest.approx(np.hypot(1 - 1 / 5**0.5, 2 / 5**0.5), rel=1e-6)
    assert not result.deterministic
    assert result.sentence().startswith("1 of 4 images changed their class in 5 passes")


def test_logits_that_move_without_changing_a_class_are_noticed():
    result = repeatability(Moody(0.01), IMAGES)
    assert not result.changed.any()
    assert not result.deterministic
    assert repeatability(Moody(1e-6), IMAGES).deterministic


def test_an_engine_that_reuses_its_output_buffer_is_not_taken_for_deterministic():
    buffer, calls = np.zeros((4, 2), dtype=np.float32), []

    def predict(images):
        calls.append(1)
        buffer[:] = [1, 0]
        buffer[2, 1] = 3 * (len(calls) % 2)
        return buffer

    assert repeatability(predict, IMAGES).changed.tolist() == [False, False, True, False]


def test_bad_input_is_refused(linear):
    with pytest.raises(OptionError, match="repeats must be at least 2"):
        repeatability(linear, IMAGES, repeats=1)
    with pytest.raises(DataError, match="at least 1 image"):
        repeatability(linear, IMAGES[:0])
    with pytest.raises(EngineError, match="expected logits"):
        repeatability(lambda x: x[:, 0, 0, 0], IMAGES)
