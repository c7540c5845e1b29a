import numpy as np
import pytest

from rctk_export.batching import (
    End,
    checked,
    checked_logits,
    in_fixed_batches,
    in_range_batches,
    one_input_one_output,
    pixels,
)
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError

SPEC = InputSpec(channels=1, height=2, width=3)


def test_images_come_out_contiguous_and_float32():
    images = np.zeros((2, 3, 1, 2), dtype=np.float64).transpose(3, 2, 0, 1)
    out = checked(images, SPEC)
    assert out.shape == (2, 1, 2, 3)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 1, 3, 2), (1, 2, 3), (2, 3, 2, 3)])
def test_a_wrong_shape_is_named_beside_the_right_one(shape):
    with pytest.raises(EngineError, match=r"takes images \(N, 1, 2, 3\), got \(") as caught:
        checked(np.zeros(shape, dtype=np.float32), SPEC)
    assert str(shape) in str(caught.value)


def test_pixels_are_rounded_to_even_and_clipped():
    x = np.array([0.5 / 255, 1.5 / 255, 254.6 / 255, -1, np.inf], dtype=np.float32)
    assert pixels(x).tolist() == [0, 2, 255, 0, 255]
    with pytest.raises(EngineError, match="NaN"):
        pixels(np.array([np.nan], dtype=np.float32))


def test_every_8_bit_image_survives_its_float_form():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(pixels(codes.astype(np.float32) / np.float32(255)), codes)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_fixed_batches_are_filled_up_and_the_surplus_is_dropped(count):
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return batch.reshape(len(batch), 1) * 2

    assert in_fixed_batches(images, 4, run).ravel().tolist() == (2 * images).ravel().tolist()
    assert sizes == [4] * -(-count // 4)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_logits_become_the_callers_own_float32_array(kind):
    logits = np.ones((2, 3), dtype=kind)
    out = checked_logits(logits, 2)
    out[:] = 0
    assert out.dtype == np.float32
    assert logits.all()
    with pytest.raises(EngineError, match=r"expected logits \(2, K\)"):
        checked_logits(np.ones((2, 3, 1, 1)), 2)


IMAGES, LOGITS = End("images", "float32", (None, 1, 2, 3)), End("logits", "float32", (None, 10))


def test_a_classifier_has_one_input_that_fits_and_one_output():
    assert one_input_one_output("m.onnx", [IMAGES], [LOGITS], SPEC) == (IMAGES, LOGITS)
    unknown = End("images", "uint8", None)
    assert one_input_one_output("m.onnx", [unknown], [LOGITS], SPEC).count(unknown) == 1
    assert (IMAGES.batch, unknown.batch, End("x", "uint8", (8, 1)).batch) == (None, None, 8)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([IMAGES, End("mask", "float32", None)], [LOGITS], r"m\.onnx has 2 inputs \(images, mask\)"),
        ([IMAGES], [LOGITS, End("aux", "float32", None)], r"m\.onnx has 2 outputs \(logits, aux\)"),
        ([], [LOGITS], r"0 inputs \(none\)"),
        ([End("images", "float16", None)], [LOGITS], "'images' of m.onnx is float16"),
        ([End("images", "float32", (None, 3, 2, 1))], [LOGITS], r"mend --input"),
        ([End("images", "float32", (None, 6))], [LOGITS], r"mend --input"),
    ],
)
def test_other_models_are_refused_by_name(inputs, outputs, message):
    with pytest.raises(EngineError, match=message):
        one_input_one_output("m.onnx", inputs, outputs, SPEC)


@pytest.mark.parametrize(
    ("count", "fewest", "most", "sizes"),
    [(0, 2, 4, [2]), (1, 2, 4, [2]), (3, 2, 4, [3]), (9, 2, 4, [4, 4, 2]), (8, 4, 4, [4, 4]), (7, 1, None, [7])],
)
def test_batches_stay_within_the_range_of_a_profile(count, fewest, most, sizes):
    seen = []

    def run(images):
        seen.append(len(images))
        return images.reshape(len(images), -1)[:, :2]

    images = np.random.default_rng(0).random((count, 1, 2, 3), dtype=np.float32)
    assert np.array_equal(in_range_batches(images, fewest, most, run), images.reshape(count, 6)[:, :2])
    assert seen == sizes
