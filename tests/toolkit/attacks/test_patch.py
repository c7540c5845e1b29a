from __future__ import annotations

import math

import pytest
import torch

from rctk.attacks.ball import Ball
from rctk.attacks.patch import Patch, Place, paste
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

ANY = ThreatModel(eps=1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def place(top, left, degrees):
    return Place(*(torch.tensor([float(v)]) for v in (top, left, math.radians(degrees))))


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


def right(model, x, y):
    with torch.no_grad():
        return int((model(x).argmax(1) == y).sum())


def test_without_rotation_the_pixels_are_copied():
    patch = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    images = paste(Ball.around(torch.ones(1, 1, 3, 4), ANY), patch, place(1, 2, 0))
    expected = torch.tensor([[1, 1, 1, 1], [1, 1, 0.1, 0.2], [1, 1, 0.3, 0.4]])
    torch.testing.assert_close(images[0, 0], expected)


def test_a_quarter_turn_is_clockwise():
    patch = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    images = paste(Ball.around(torch.ones(1, 1, 2, 2), ANY), patch, place(0, 0, 90))
    torch.testing.assert_close(images[0, 0], torch.tensor([[0.3, 0.1], [0.4, 0.2]]), atol=1e-5, rtol=0)


def test_a_small_budget_holds_under_the_patch():
    images = paste(
        Ball.around(torch.full((1, 1, 4, 4), 0.5), ThreatModel(eps=0.1)), torch.ones(1, 1, 2, 2), place(0, 0, 0)
    )
    assert images.max() == pytest.approx(0.6)


def test_only_pixels_in_a_square_of_the_given_area_change(digits, batch):
    x, y = batch
    attack = Patch(area=0.15, steps=3, rotation=0)
    assert attack.side(8, 8) == 3
    changed = (attack(digits.plain, x, y, ANY, generator()) != x)[:, 0]
    rows, columns = changed.any(dim=2), changed.any(dim=1)
    for lines in (rows, columns):
        places = [torch.nonzero(line)[:, 0] for line in lines if line.any()]
        assert all(int(found.max() - found.min()) < 3 for found in places)
    assert len({tuple(found.tolist()) for found in changed.flatten(1)}) > 20  # they lie in many places


def test_training_beats_random_patches_and_a_choice_of_places_beats_one(digits, batch):
    x, y = batch
    left = {
        name: right(digits.robust, attack(digits.robust, x, y, ANY, generator()), y)
        for name, attack in {
            "random": Patch(steps=1, draws=1, learning_rate=1e-9),
            "trained": Patch(steps=30),
            "best place": Patch(steps=30, tries=10),
            "larger": Patch(steps=30, area=0.25),
        }.items()
    }
    assert left["trained"] <= left["random"] - 5
    assert left["best place"] <= left["trained"] - 20
    assert left["larger"] <= left["trained"] - 20


def test_a_shared_patch_is_one_for_all_images(digits, batch):
    x, y = batch
    attack = Patch(steps=20, rotation=0, shared=True)
    found = attack(digits.plain, x, y, ANY, generator())
    contents = set()
    for image, original in zip(found, x, strict=True):
        changed = torch.nonzero((image != original)[0])
        if len(changed) == attack.side(8, 8) ** 2:
            contents.add(tuple(image[0][changed[:, 0], changed[:, 1]].tolist()))
    assert len(contents) == 1
    own = Patch(steps=20, rotation=0)(digits.plain, x, y, ANY, generator())
    assert right(digits.plain, found, y) < right(digits.plain, x, y)
    assert not torch.equal(own, found)


def test_an_image_does_not_depend_on_its_batch_unless_the_patch_is_shared(digits, batch):
    x, y = batch[0][:12], batch[1][:12]
    attack = Patch(steps=5, draws=2)
    whole = attack(digits.plain, x, y, ANY, generator())
    parts = torch.cat(
        [attack(digits.plain, *pair, ANY, generator()) for pair in zip(x.split(5), y.split(5), strict=True)]
    )
    torch.testing.assert_close(whole, parts, atol=1e-3, rtol=0)


def test_an_image_that_is_misclassified_as_it_is_stays(digits, batch):
    x, _ = batch
    with torch.no_grad():
        other = (digits.plain(x).argmax(1) + 1) % 10
    assert torch.equal(Patch(steps=1)(digits.plain, x, other, ANY, generator()), x)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"tries": 0}, {"area": 0}, {"area": 1.5}, {"rotation": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="patch"):
        Patch(**settings)
