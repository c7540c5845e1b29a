import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from rctk_export.engines.reference import Reference  # noqa: E402


def exported(path, module, shape):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        module.eval(),
        (torch.rand(2, *shape),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
    )
    channels, height, width = shape
    return Source(path=path, input=InputSpec(channels=channels, height=height, width=width))


def residual_net(torch):
    F, nn = torch.nn.functional, torch.nn

    class Net(nn.Module):
        """Option-A shortcut, asymmetric padding, normalisation inside, ceil-mode average pool, LayerNorm head."""

        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.down, self.norm2 = nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16)
            self.head = nn.Sequential(nn.LayerNorm(16), nn.GELU(), nn.Dropout(), nn.Linear(16, 10))
            for norm in (self.norm, self.norm2):
                nn.init.uniform_(norm.running_mean, -0.5, 0.5)
                nn.init.uniform_(norm.running_var, 0.5, 2)

        def forward(self, x):
            x = torch.relu(self.norm(self.stem((x - 0.4) / 0.2)))
            y = self.norm2(self.down(F.pad(x, (0, 1, 0, 1))))
            x = F.leaky_relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)), 0.1)
            x = F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
            return self.head(F.max_pool2d(x, 2).mean((2, 3)))

    return Net()


def mobile_net(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            wide = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
            deep = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Hardswish(), nn.Conv2d(24, 8, 1))
            self.body = nn.Sequential(*wide, *deep)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())

        def forward(self, x):
            y = self.body(x)
            return x + y * self.gate(y)

    return nn.Sequential(
        *[nn.Conv2d(3, 8, 3, stride=2), Block(), nn.SiLU(), nn.GroupNorm(2, 8), nn.Upsample(scale_factor=2)],
        *[nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10), nn.LogSoftmax(1)],
    )


def spatial_transformer(torch):
    F, nn = torch.nn.functional, torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.find, self.theta = nn.Conv2d(3, 4, 5), nn.Linear(4 * 144, 6)
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

        def forward(self, x):
            theta = self.theta(torch.relu(self.find(x)).flatten(1)).view(-1, 2, 3)
            x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)
            return self.head(F.softplus(self.conv(x)).amax((2, 3)))

    return Net()


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns about its own internals
@pytest.mark.parametrize("make", [residual_net, mobile_net, spatial_transformer])
def test_networks_exported_by_torch_agree_with_torch_and_onnxruntime(tmp_path, images, make):
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make(torch)
    source, x = exported(tmp_path / "m.onnx", module, (3, 16, 16)), images(7, 3, 16, 16)
    with Reference().open(source) as engine, torch.no_grad():
        logits = engine.predict(x)
        assert engine.predict(x[:0]).shape == (0, 10)
    np.testing.assert_allclose(logits, module(torch.from_numpy(x)).detach().numpy(), atol=1e-4)
    session = onnxruntime.InferenceSession(source.path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(logits, session.run(None, {session.get_inputs()[0].name: x})[0], atol=1e-4)
