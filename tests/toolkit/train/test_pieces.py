import pytest
import torch
from torch import nn

from rctk.models import build_architecture
from rctk.train import TrainSettings, draw_weights
from rctk.train.normalised import Normalised
from rctk.train.schedule import lr_share, milestones_of
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError


def test_normalised_subtracts_and_divides_per_channel():
    spec = InputSpec(channels=2, height=1, width=1, mean=(0.5, 0.25), std=(0.5, 0.25))
    model = Normalised(nn.Flatten(), spec)
    assert model(torch.tensor([[[[1.0]], [[0.0]]]])).tolist() == [[1, -1]]
    assert not model.state_dict()


def test_logits_have_the_type_of_the_images_under_autocast_too():
    spec = InputSpec(channels=1, height=2, width=2)
    model = Normalised(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(1, 1, 2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.75, 0.5, 0]),
        ("cyclic", [0, 5 / 6, 5 / 6, 0]),
        ("multistep", [1, 1, 0.1, 0.01]),
    ],
)
def test_learning_rates_at_known_points(schedule, shares):
    assert [lr_share(schedule, done) for done in (0, 1 / 3, 0.5, 1)] == pytest.approx(shares)


def test_milestones_are_rising_shares():
    assert milestones_of("1/3+0.5+0.9") == (1 / 3, 0.5, 0.9)
    assert lr_share("multistep", 0.95, "1/3+0.5+0.9") == pytest.approx(1e-3)
    for bad in ("0.5+0.5", "1/2+1", "0.7+0.2", "half", ""):
        with pytest.raises(OptionError, match=r"milestones must be rising shares .* got"):
            milestones_of(bad)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(OptionError, match="choose from constant, cosine, cyclic"):
        lr_share("linear", 0.5)


def test_drawn_weights_depend_on_the_seed_alone_and_have_torchs_distribution():
    def drawn(seed):
        module = build_architecture("digits-cnn", classes=10, input=None)
        draw_weights(module, torch.Generator().manual_seed(seed))
        return module.state_dict()

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    weight = first[
        "5.weight"
    ]  # 512 inputs: uniform within 1 / sqrt(512), whose standard deviation is that over sqrt(3)
    assert weight.abs().max() <= 512**-0.5
    assert weight.std().item() == pytest.approx((512 * 3) ** -0.5, rel=0.01)


def test_drawing_weights_resets_batchnorm():
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    module[1].weight.data.fill_(7)
    module[1].running_var.fill_(7)
    draw_weights(module, torch.Generator())
    assert module[1].weight.tolist() == module[1].running_var.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be at least 1, got -3"),
        ({"validation_steps": 0}, "validation_steps must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0; leave it out to run all epochs"),
        ({"lr": 0}, "training needs lr > 0 and finite, got 0"),
        ({"lr": float("nan")}, "training needs lr > 0 and finite, got nan"),
        ({"momentum": 1}, "training needs 0 <= momentum < 1, got 1"),
        ({"weight_decay": float("inf")}, "training needs weight_decay >= 0 and finite, got inf"),
        ({"validation_eps": 2}, r"validation_eps must lie in \[0, 1\], got 2"),
        ({"ema_decay": 1}, "averaging needs 0 < ema_decay < 1, got 1"),
        ({"swa_start": 1}, "averaging needs 0 <= swa_start < 1, got 1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63"),
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"milestones": "2"}, "milestones must be rising shares .*, got '2'"),
        ({"augment": "crop:padding=0"}, "crop:padding must be at least 1, got 0"),
        ({"augment": "cropp"}, "did you mean 'aug.crop'"),
    ],
)
def test_settings_without_sense_are_refused_by_name_and_value(bad, words):
    with pytest.raises(OptionError, match=words):
        TrainSettings(**bad)


def test_settings_at_their_bounds_are_taken():
    TrainSettings(epochs=1, batch_size=1, validation_steps=1, patience=1, momentum=0, weight_decay=0, swa_start=0)
    TrainSettings(validation_eps=0)
