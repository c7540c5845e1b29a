"""What holds for every corruption of the table."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from rctk.stress import CORRUPTIONS, STRESS_TESTS
from rctk.stress.condition import draws, to_pixels
from rctk.stress.corrupt import SEVERITIES, corrupt, load_corruption, names
from rctk_kernels.errors import OptionError

every = pytest.mark.parametrize("name", CORRUPTIONS)
NOT_RISING = {
    "glass_blur": "published: fewer passes with a wider blur come before more passes with a narrow one",
    "snow": "published: larger flakes come before denser snow",
    "frost": "published: the image gives way to the ice, and a mean grey is near to both",
    "elastic_transform": "published: from moving the whole image to bending it locally",
    "spatter": "published: water first, then mud",
    "saturate": "published: less colour first, then more",
}


def test_the_table_holds_fifteen_types_and_four_held_out():
    groups = [row.where for row in CORRUPTIONS.values()]
    counts = {group: groups.count(group) for group in dict.fromkeys(groups)}
    assert counts == {"noise": 3, "blur": 4, "weather": 4, "digital": 4, "held out": 4}


@every
def test_both_sizes_have_constants_for_five_severities(name):
    module = importlib.import_module(CORRUPTIONS[name].function.partition(":")[0])
    assert len(module.SMALL) == len(module.LARGE) == len(SEVERITIES)
    assert load_corruption(name).__doc__


@every
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 33), (1, 8, 8), (3, 70, 90)], ids=str)
def test_images_stay_images(name, shape, pictures):
    images = pictures(2, *shape)
    before = images.copy()
    for severity in (1, 3, 5):
        out = corrupt(images, name, severity, seed=0, indices=np.array([4, 9]))
        assert out.shape == images.shape
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 1
        assert np.array_equal(out, to_pixels(out))  # on the 256 levels
    assert np.array_equal(images, before)
    changed = not np.array_equal(out, images)
    assert changed or (name == "saturate" and shape[0] == 1)  # grey has no colour


@every
def test_a_result_belongs_to_the_image_and_not_to_its_batch(name, pictures):
    images, indices = pictures(4, 3, 16, 16), np.array([7, 3, 12, 5])
    whole = corrupt(images, name, 3, seed=1, indices=indices)
    order = np.array([2, 0])
    part = corrupt(images[order], name, 3, seed=1, indices=indices[order])
    assert np.array_equal(whole[order], part)


@every
def test_only_random_types_depend_on_seed_and_index(name, pictures):
    images = np.repeat(pictures(1, 3, 16, 16), 2, axis=0)
    first, second = corrupt(images, name, 4, seed=0, indices=np.array([0, 1]))
    other = corrupt(images[:1], name, 4, seed=1, indices=np.array([0]))[0]
    fixed = {
        "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur",
        "saturate",
    }  # fmt: skip
    assert np.array_equal(first, second) == (name in fixed)
    assert np.array_equal(first, other) == (name in fixed)


@every
@pytest.mark.parametrize("side", [32, 72])
def test_distance_rises_with_severity(name, side, pictures):
    images = pictures(8, 3, side, side)
    distance = [
        float(np.abs(corrupt(images, name, s, seed=0, indices=np.arange(8)) - images).mean()) for s in SEVERITIES
    ]
    if name in NOT_RISING:
        assert min(distance) > 0
    else:
        assert distance == sorted(distance)
        assert distance[-1] > 1.2 * distance[0] > 0


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_other_severities_are_refused(severity, pictures):
    with pytest.raises(OptionError, match="1, 2, 3, 4 or 5"):
        corrupt(pictures(1, 1, 8, 8), "fog", severity, seed=0, indices=np.array([0]))


def test_words_become_names_in_table_order():
    assert names(["all"]) == list(CORRUPTIONS)
    assert len(names(["benchmark"])) == 15
    assert names(["held-out"]) == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
    assert names(["snow", "gaussian-noise", "snow"]) == ["gaussian_noise", "snow"]
    with pytest.raises(OptionError, match="did you mean 'fog'"):
        names(["forg"])


def test_draws_differ_by_test_and_image_and_repeat():
    assert draws(0, "fog", 1).random() == draws(0, "fog", 1).random()
    assert len({draws(s, w, i).random() for s in (0, 1) for w in ("fog", "snow") for i in (0, 1)}) == 8


def test_pixels_are_clipped_and_rounded():
    assert to_pixels(np.array([-1, 0.0019, 0.002, 0.5, 2])).tolist() == pytest.approx([0, 0, 1 / 255, 128 / 255, 1])


def test_all_but_jpeg_run_on_numpy_alone():
    code = """
import sys
for package in ("torch", "onnx", "scipy", "sklearn", "PIL", "matplotlib", "pandas"):
    sys.modules[package] = None
import numpy as np
from rctk.stress import CORRUPTIONS, STRESS_TESTS
from rctk.stress.corrupt import corrupt
import rctk.stress.run, rctk.stress.plan, rctk.stress.summary, rctk.cli.stress_command
x = np.full((1, 3, 9, 9), 0.5, dtype=np.float32)
for name in CORRUPTIONS:
    if name != "jpeg_compression":
        corrupt(x, name, 5, seed=0, indices=np.array([0]))
for name in ("occlusion", "spatial"):
    STRESS_TESTS.build(name).conditions(0)[0].make(0, x, np.array([0]))
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


def test_stress_tests_are_built_from_text():
    assert STRESS_TESTS.names() == ["jpeg", "occlusion", "spatial"]
    assert STRESS_TESTS.build("occlusion:side=0.5,fill=noise").conditions(0)[0].level == "50 % side"
