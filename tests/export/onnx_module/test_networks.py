"""Whole networks: what torch exports, what other tools wrote, and what ONNX Runtime's quantizer makes of them."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from onnxruntime import quantization as ortq  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402


class OptionA(nn.Module):
    """Residual blocks whose shortcut strides and pads channels."""

    def __init__(self):
        super().__init__()
        widths = [(6, 6, 1), (6, 12, 2)]
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()),
                *(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)),
            )
            for i, o, s in widths
        )
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            y = block(x)
            if y.shape != x.shape:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
            x = F.relu(x + y)
        return self.fc(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1))


class Inverted(nn.Module):
    """Depthwise convolutions, ReLU6 and a linear bottleneck."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = nn.Sequential(
            *(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()),
            *(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()),
            *(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)),
        )
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.drop(F.adaptive_avg_pool2d(x + self.block(x), 1).flatten(1)))


class Vgg(nn.Sequential):
    """Convolution, BatchNorm, in-place ReLU, pooling, dense layers."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * 64, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 10)),
        )


class Keras(nn.Module):
    """TensorFlow's SAME padding: one more pixel right and below."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.a(F.pad(x, (0, 1, 0, 1))))
        return self.fc(F.relu(self.b(F.pad(x, (0, 1, 0, 1)))).mean((2, 3)))


class Transformer(nn.Module):
    """A spatial transformer in front of a small net."""

    def __init__(self):
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6))
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.Linear(6 * 36, 10)

    def forward(self, x):
        theta = self.locate(x).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)
        return self.fc(self.norm(F.max_pool2d(F.leaky_relu(self.conv(x)), 2)).flatten(1))


NETS = [OptionA, Inverted, Vgg, Keras, Transformer]


def made(kind):
    """A network with statistics that folding BatchNorm cannot ignore."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = kind().eval()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                    tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return net


def exported(net, shape=(3, 16, 16), *, dynamo=True, **options):
    """The ONNX model of ``net`` with a dynamic batch."""
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=4096)},), "verbose": False}
    if not dynamo:
        batch = {"dynamic_axes": {"images": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        file = io.BytesIO()
        names = {"input_names": ["images"], "output_names": ["logits"]}
        program = torch.onnx.export(
            net, (torch.rand(2, *shape),), None if dynamo else file, dynamo=dynamo, **names, **batch, **options
        )
    return program.model_proto if dynamo else onnx.load_from_string(file.getvalue())


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def pairs(request):
    net = made(request.param)
    return net, [exported(net), exported(net, optimize=False), exported(net, dynamo=False, opset_version=20)]


@pytest.mark.parametrize("form", [0, 1, 2], ids=["dynamo", "dynamo unoptimised", "legacy"])
def test_an_exported_network_gives_logits_and_gradients_of_torch(tools, pairs, form):
    net, model = pairs[0], pairs[1][form]
    module = OnnxModule(model)
    x = torch.from_numpy(np.random.default_rng(0).random((5, 3, 16, 16), dtype=np.float32))
    grads = []
    for each in (net, module):
        images = x.clone().requires_grad_()
        logits = each(images)
        F.cross_entropy(logits, torch.arange(5)).backward()
        grads.append(images.grad)
        np.testing.assert_allclose(logits.detach().numpy(), tools.unoptimised(model, x.numpy()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-6)
    exact = OnnxModule(model, mode="exact")(x)
    torch.testing.assert_close(exact, net(x), rtol=1e-4, atol=1e-5)


# Quantized by ONNX Runtime, on sklearn's handwritten digits


class Reader(ortq.CalibrationDataReader):
    def __init__(self, images, name, batch):
        self.batches = iter([{name: images[i : i + batch]} for i in range(0, len(images), batch)])

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A convolutional net trained on digits, its ONNX file and all images."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(2)),
            *(nn.Conv2d(24, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(5):
            for chunk in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(x[chunk]), y[chunk]).backward()
                optimizer.step()
    path = tmp_path_factory.mktemp("digits") / "float.onnx"
    onnx.save(exported(net.eval(), (1, 8, 8)), path)
    return path, images, labels


TYPES = {"U": ortq.QuantType.QUInt8, "S": ortq.QuantType.QInt8}
TENSORRT = {"ActivationSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False}
QUANTIZERS = {
    "QDQ U8S8": (ortq.QuantFormat.QDQ, "US", {}),
    "QDQ S8S8": (ortq.QuantFormat.QDQ, "SS", {}),
    "QDQ S8S8 symmetric": (ortq.QuantFormat.QDQ, "SS", TENSORRT),
    "QOperator U8S8": (ortq.QuantFormat.QOperator, "US", {}),
    "QOperator U8U8": (ortq.QuantFormat.QOperator, "UU", {}),
}


def quantized(source, target, images, kind, *, name="images", batch=64):
    form, types, extra = QUANTIZERS[kind]
    reader = Reader(images, name, batch)
    ortq.quantize_static(
        *(str(source), str(target), reader),
        quant_format=form,
        per_channel=types != "UU",
        activation_type=TYPES[types[0]],
        weight_type=TYPES[types[1]],
        extra_options=extra,
    )
    return onnx.load(target)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_quantized_network_classifies_as_onnx_runtime_does(tools, digits, tmp_path, kind):
    path, images, labels = digits
    model = quantized(path, tmp_path / "int8.onnx", images[:256], kind)
    expected = tools.unoptimised(model, images).argmax(axis=1)
    assert (expected == labels).mean() > 0.9
    for mode in ("fast", "exact"):
        module = OnnxModule(model, mode=mode)
        with torch.inference_mode():
            found = module(torch.from_numpy(images)).numpy().argmax(axis=1)
        assert (found == expected).mean() >= 0.995, mode
    x = torch.from_numpy(images[:32]).requires_grad_()
    F.cross_entropy(OnnxModule(model)(x), torch.from_numpy(labels[:32])).backward()
    assert (x.grad.flatten(1).abs().sum(dim=1) > 0).all()


# Files of other tools

MODELS = Path(os.environ.get("RCTK_MODELS", "absent"))
DATA = Path(os.environ.get("RCTK_DATA", "absent"))
FILES = {
    "cifar_wide_kw": ("cifar10/cifar_wide_kw.onnx", (3, 32, 32), np.float32, 1),
    "resnet_4b": ("cifar10/resnet_4b.onnx", (3, 32, 32), np.float32, 1),
    "mnist of CNTK": ("mnist/mnist.onnx", (1, 28, 28), np.float32, 1),
    "SqueezeNet in float16": ("imagenet/SqueezeNet_fp16.onnx", (3, 224, 224), np.float16, 100),
}


def model_file(name):
    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"no {name} below RCTK_MODELS")
    return path


@pytest.mark.data
@pytest.mark.parametrize(("name", "shape", "dtype", "unit"), FILES.values(), ids=FILES)
def test_a_file_for_one_image_gives_the_logits_of_onnx_runtime_in_any_batch(tools, name, shape, dtype, unit):
    path = model_file(name)
    x = (tools.images(shape) * unit).astype(dtype)
    expected = np.concatenate([tools.unoptimised(onnx.load(path), one[None]) for one in x]).reshape(3, -1)
    for mode in ("fast", "exact"):
        module = OnnxModule(path, mode=mode)
        logits = module(torch.from_numpy(x)).detach().numpy()
        assert module._stays_apart  # the batch of 1 in the file holds nobody up
        np.testing.assert_allclose(logits, expected, rtol=2e-3 if dtype is np.float16 else 1e-4, atol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize("kind", ["QDQ U8S8", "QDQ S8S8 symmetric", "QOperator U8S8"])
def test_an_adversarially_trained_network_keeps_its_answers(tools, tmp_path, kind):
    if not (DATA / "cifar10" / "test.npz").is_file():
        pytest.skip("no cifar10 below RCTK_DATA")
    model = onnx.version_converter.convert_version(onnx.load(model_file("cifar10/resnet_4b.onnx")), 17)
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "float.onnx")
    pixels = np.load(DATA / "cifar10" / "test.npz")["images"].transpose(0, 3, 1, 2).astype(np.float32) / 255
    mean, std = (np.float32(v).reshape(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)))
    images = (pixels - mean) / std
    name = OnnxModule(model).input_name
    int8 = quantized(tmp_path / "float.onnx", tmp_path / "int8.onnx", images[:256], kind, name=name)
    with torch.inference_mode():
        found = OnnxModule(int8)(torch.from_numpy(images)).numpy().argmax(axis=1)
    assert (found == tools.unoptimised(int8, images).argmax(axis=1)).mean() >= 0.995
