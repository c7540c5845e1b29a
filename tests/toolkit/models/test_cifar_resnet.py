import torch

from rctk.models.cifar_resnet import PaddedShortcut, cifar_resnet


def test_the_padded_shortcut_takes_every_second_pixel_and_pads_both_sides():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = PaddedShortcut(1, 3, 2)(x)
    assert out.tolist() == [[[[0, 0], [0, 0]], [[0, 2], [8, 10]], [[0, 0], [0, 0]]]]


def test_keys_are_those_of_the_published_weight_files():
    padded, projection = cifar_resnet(depth=8), cifar_resnet(depth=8, shortcut="projection")
    assert "layer2.0.bn2.running_var" in padded.state_dict()
    assert "linear.weight" in padded.state_dict()
    assert not any("downsample" in key for key in padded.state_dict())
    assert {"layer2.0.downsample.0.weight", "layer3.0.downsample.1.bias", "fc.bias"} <= set(projection.state_dict())
    assert not any("layer1.0.downsample" in key for key in projection.state_dict())
