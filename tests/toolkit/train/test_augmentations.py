import pytest
import torch

from rctk.train import AUGMENTATIONS, build_augmentations
from rctk.train.crop import Crop
from rctk.train.cutmix import CutMix
from rctk.train.cutout import Cutout
from rctk.train.flip import Flip
from rctk.train.mixup import MixUp
from rctk_kernels.errors import OptionError

LABELS = torch.arange(3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def one_hot(count):
    return torch.nn.functional.one_hot(torch.arange(count) % 3, 3).float()


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_every_augmentation_keeps_shapes_and_ranges_repeats_and_leaves_its_input_alone(name):
    (method,) = build_augmentations(name)
    x = torch.rand(64, 3, 32, 32, generator=seeded(1))
    y = one_hot(64) if method.mixes else torch.arange(64) % 3
    before, labels, state = x.clone(), y.clone(), torch.get_rng_state()
    first, again, *others = (method(x, y, seeded(seed)) for seed in (5, 5, *range(6, 16)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert torch.equal(y, labels)
    assert first[0].shape == x.shape
    assert first[1].shape == y.shape
    assert first[0].dtype == x.dtype
    assert 0 <= first[0].min() <= first[0].max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(first[0], other[0]) for other in others)  # CutMix leaves every second batch alone
    if method.mixes:
        torch.testing.assert_close(first[1].sum(dim=1), torch.ones(64))
    else:
        assert torch.equal(first[1], y)


def test_a_crop_that_loses_the_image_is_refused():
    with pytest.raises(OptionError, match="padding of 8 pixels would shift whole 8x9 images out of sight"):
        Crop(padding=8)(torch.rand(2, 1, 8, 9), torch.zeros(2), seeded())


def test_a_cutout_that_covers_every_image_is_refused():
    with pytest.raises(OptionError, match="cutout:size of 16 pixels covers whole 8x9 images"):
        Cutout()(torch.rand(2, 1, 8, 9), torch.zeros(2), seeded())


def test_a_crop_shifts_an_image_and_fills_with_zeros():
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3).repeat(200, 1, 1, 1)
    cropped, _ = Crop(padding=1)(x, torch.zeros(200), seeded())
    padded = torch.zeros(5, 5)
    padded[1:4, 1:4] = x[0, 0]
    windows = {tuple(padded[i : i + 3, j : j + 3].flatten().tolist()) for i in range(3) for j in range(3)}
    assert {tuple(image.flatten().tolist()) for image in cropped} == windows  # all nine, and nothing else


def test_a_flip_mirrors_about_half_of_the_images():
    x = torch.tensor([[[[1.0, 2.0]]]]).repeat(1000, 1, 1, 1)
    first = Flip()(x, torch.zeros(1000), seeded())[0][:, 0, 0, 0]
    assert set(first.tolist()) == {1, 2}
    assert 420 < (first == 2).sum() < 580  # five standard deviations of a fair coin


def test_cutout_covers_one_square_of_each_image_which_may_stick_out():
    covered = Cutout(size=2, fill=0.5)(torch.ones(500, 2, 3, 3), torch.zeros(500), seeded())[0] == 0.5
    assert torch.equal(covered[:, 0], covered[:, 1])
    corners = {tuple(image.flatten().tolist()) for image in covered[:, 0]}
    squares = set()
    for top in range(-1, 2):
        for left in range(-1, 2):
            square = torch.zeros(3, 3, dtype=torch.bool)
            square[max(top, 0) : top + 2, max(left, 0) : left + 2] = True
            squares.add(tuple(square.flatten().tolist()))
    assert corners == squares


def test_mixup_blends_labels_as_it_blends_images():
    y = one_hot(30)
    mixed, labels = MixUp()(y[:, :, None, None].clone(), y, seeded())
    torch.testing.assert_close(mixed[:, :, 0, 0], labels)
    shares = {round(float(value), 4) for value in labels.flatten()}
    assert 3 <= len(shares) <= 4  # 0, the share, its rest, and 1 where an image met its own class
    assert 0 < min(shares - {0.0}) < 1


def test_cutmix_gives_labels_the_area_that_each_class_has():
    y = one_hot(30)
    x = y[:, :, None, None].expand(30, 3, 6, 5).clone()
    for seed in range(20):
        mixed, labels = CutMix(probability=1.0)(x, y, seeded(seed))
        torch.testing.assert_close(mixed.mean(dim=(2, 3)), labels)


def test_cutmix_leaves_as_many_batches_alone_as_it_is_told():
    x = torch.rand(4, 1, 8, 8, generator=seeded())
    generator = seeded()
    changed = sum(CutMix(probability=0.25)(x, one_hot(4), generator)[0] is not x for _ in range(800))
    assert 139 < changed < 261  # 200, and five standard deviations


def test_augmentations_are_built_from_text():
    assert build_augmentations("crop:padding=2+aug.flip+cutmix:alpha=0.5;probability=1") == (
        Crop(padding=2),
        Flip(),
        CutMix(alpha=0.5, probability=1.0),
    )
    assert build_augmentations("crop-flip") == (Crop(), Flip())
    assert build_augmentations("none") == build_augmentations("") == ()
    with pytest.raises(OptionError, match=r"did you mean 'aug\.cutout'"):
        build_augmentations("crop+cutot")


@pytest.mark.parametrize("bad", ["crop:padding=0", "cutout:size=0", "cutout:fill=2", "mixup:alpha=0", "cutmix:alpha=0"])
def test_augmentations_without_sense_are_refused(bad):
    with pytest.raises(OptionError):
        build_augmentations(bad)
