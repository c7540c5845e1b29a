"""What every quantizer keeps: a grid that a file can hold; and what ships is what was trained, code for code."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from rctk.compress import STEPS
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.agreement import measure_agreement
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.qat.place import Spot
from rctk.qat.step import Qat
from rctk_export.capture import capture
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import serialize
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize.grid import given_grid
from rctk_kernels.errors import OptionError

METHODS = [name for name in STEPS.names() if isinstance(STEPS.load(name), type) and issubclass(STEPS.load(name), Qat)]
CASES = [(name, bits) for name in METHODS for bits in range(1, 9) if bits in STEPS.load(name).widths]
NO_ZERO = {"quant.dorefa", "quant.pact", "quant.bnn", "quant.xnor", "quant.binaryconnect"}
"""Methods whose weights cannot be 0 by their definition; one-bit weights never can."""
SPEC = InputSpec(channels=3, height=12, width=12, mean=(0.5, 0.4, 0.5), std=(0.2, 0.2, 0.3))


def step_of(name, bits, **settings):
    cls = STEPS.load(name)
    small = {"weights": bits, "activations": bits, "epochs": 1, "batch_size": 16, "samples": 32}
    return cls(**{**small, **settings})


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_weights_are_few_values_that_stay_when_quantized_again(name, bits):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 5
    weight[0, 0, 0, 0] = 0
    quantizer = step_of(name, bits).weight_quantizer(weight, bits, per_channel=True).eval()
    with torch.no_grad():
        values, codes = quantizer(weight), quantizer.codes(weight)
        scale = quantizer.scale(weight)
    assert torch.equal(values, codes * (scale.reshape(-1, 1, 1, 1) if scale.ndim else scale))
    assert all(len(row.unique()) <= 2**bits for row in codes)
    assert codes.abs().max() <= 127
    if name not in NO_ZERO and bits > 1:
        assert codes[0, 0, 0, 0] == 0
    if name not in {"quant.dorefa", "quant.pact", "quant.twn"}:  # their grids depend on the values
        with torch.no_grad():
            assert torch.equal(quantizer.codes(values), codes)


@pytest.mark.parametrize(("name", "bits"), [(name, bits) for name in METHODS for bits in (1, 2, 4, 8)])
@pytest.mark.parametrize("signed", [False, True])
def test_activations_lie_on_the_grid_that_ships(name, bits, signed):
    half = 2 ** (bits - 1)
    spot = Spot(low=-half if signed else 0, high=max(half - 1, 1) if signed else 2**bits - 1, bits=bits, thin=True)
    quantizer = step_of(name, max(STEPS.load(name).widths[0], 1), activations=bits).activation_quantizer(
        spot, (-1.3 if signed else 0.0, 2.1)
    )
    x = torch.linspace(-3 if signed else 0, 3, 2001).reshape(1, -1)
    with torch.no_grad():
        values, steps = quantizer(x), quantizer.steps()
        grid = given_grid(steps, signed=False)
        assert grid is not None
        codes = np.clip(np.rint(x.numpy() / grid.scale) + int(grid.zero), grid.low, grid.high)
        assert np.array_equal(values.numpy(), (codes - float(grid.zero)).astype(np.float32) * grid.scale)
        assert torch.equal(quantizer(values), values)
        assert float(quantizer(torch.zeros(1, 1))) == 0
    most = 2**bits + (signed and bits == 1)  # a signed tensor of one bit has -1, 0 and 1
    assert len(values.unique()) <= most


class Net(nn.Module):
    """A branch, a residual sum, pooling and a Clip."""

    def __init__(self):
        super().__init__()
        self.a, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.b, self.c = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.d, self.fc = nn.Conv2d(16, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = self.bn(self.a(x)).relu()
        x = (x + self.c(self.b(x).relu())).relu()
        x = nn.functional.relu6(self.d(nn.functional.max_pool2d(x, 2)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def draft():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Draft(model=capture(Net().eval(), SPEC), input=SPEC)


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = (rng.random((96, *SPEC.shape)) / 2 + labels[:, None, None, None] / 8).astype(np.float32)
    return Split(name="stripes:train", images=images, labels=labels)


@pytest.fixture(scope="module")
def context(split):
    return Context(train=split, validation=split.take(np.arange(32)), input=SPEC)


def shipped(step, draft, context):
    """Return the trained net and its file."""
    net = step.net(draft, context)
    step.train(net, draft, context)
    for norm in net.norms:  # some channels with a negative factor, whose codes change their signs
        norm.factor.data[::3] *= -1
    (file, *_) = int8_files(net.draft(), [step.target], context.train, Silent())
    return net, file


def assert_equal_code_for_code(net, file, *, signed):
    stored = {t.name: numpy_helper.to_array(t) for t in file.model.graph.initializer}
    formats = net.draft().formats
    for item in net.trained:
        weight = formats.weights[item.layer.name]
        if not signed:
            codes = stored[f"{item.layer.name}.weight.codes"][:, : weight.codes.shape[1]]
            assert np.array_equal(codes, weight.codes)
        assert np.array_equal(stored[f"{item.layer.name}.weight.scale"], weight.scales)
        latent = net.graph.initializers[item.layer.initializer].detach()
        trained = item.quantizer.codes(latent).numpy()
        if item.norm is not None:
            trained = trained * np.sign(item.norm.affine().factor.detach().numpy()).reshape(
                -1, *[1] * (trained.ndim - 1)
            )
        assert np.array_equal(weight.codes, trained.astype(np.int8))
    for tensor, steps in net.grids().items():
        if f"{tensor}.scale" in stored:
            grid = given_grid(steps, signed=signed)
            assert stored[f"{tensor}.scale"] == grid.scale
            assert stored[f"{tensor}.zero"] == grid.zero


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_what_trains_is_what_ships(name, bits, draft, context):
    net, file = shipped(step_of(name, bits), draft, context)
    assert_equal_code_for_code(net, file, signed=False)
    x, twin = torch.from_numpy(context.train.images), OnnxModule(file.model)
    with torch.no_grad():
        trained, written = net(x), twin(x)
    apart = (trained - written).abs().amax(dim=1) / written.abs().max()
    assert (apart < 1e-4).float().mean() > 0.9  # elsewhere a float32 sum fell on the other side of an edge
    assert apart.max() < 0.02
    assert (trained.argmax(1) == written.argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_the_variant_of_dorefa_ships_what_it_trains(bits, draft, context):
    step = step_of("quant.dorefa", bits, variant="bernhard")
    quantizer = step.weight_quantizer(torch.empty(0), bits, per_channel=True)
    expected = {1: [1, -1], 3: [1, -1], 8: [13, -13]}[bits]  # 7 (1/2 + tanh(0.1) / 2) = 3.85; 127 tanh(0.1) = 12.66
    assert quantizer.codes(torch.tensor([[0.1, -0.1]])).tolist() == [expected]
    net, file = shipped(step, draft, context)
    assert_equal_code_for_code(net, file, signed=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"bn": "folded"},
        {"edge_layers": "same"},
        {"edge_layers": "float"},
        {"target": "tensorrt"},
        {"distill": 0.5},
        {"objective": "train.qat_at:steps=2;eps=0.05;attack_on=both"},
        {"objective": "train.trades:steps=2;eps=0.05"},
        {"averaging": "ema"},
    ],
    ids=str,
)
def test_what_trains_is_what_ships_with_other_settings(settings, draft, context):
    step = step_of("quant.lsq", 3, **settings)
    net, file = shipped(step, draft, context)
    assert_equal_code_for_code(net, file, signed=step.target == "tensorrt")
    x = torch.from_numpy(context.train.images)
    with torch.no_grad():
        assert (net(x).argmax(1) == OnnxModule(file.model)(x).argmax(1)).float().mean() > 0.95


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_codes_below_eight_bits_are_clipped_in_the_file(bits, draft, context):
    net, file = shipped(step_of("quant.lsq", bits), draft, context)
    makers = {name: node for node in file.model.graph.node for name in node.output}
    stored = {t.name: numpy_helper.to_array(t) for t in file.model.graph.initializer}
    few = {tensor for tensor, spot in net.places.spots.items() if spot.thin}
    assert len(few) >= 3
    found = 0
    for node in file.model.graph.node:
        if node.op_type == "QuantizeLinear" and node.name.removesuffix(".quantize") in few:
            clip = makers[node.input[0]]
            steps = net.grids()[node.name.removesuffix(".quantize")]
            assert clip.op_type == "Clip"
            assert (float(stored[clip.input[1]]), float(stored[clip.input[2]])) == pytest.approx(steps.reach)
            found += 1
    assert found >= len(few)


@pytest.mark.parametrize("bits", [2, 8])
def test_engine_and_twin_of_a_trained_file_agree(bits, draft, context, tmp_path):
    _, file = shipped(step_of("quant.lsq", bits), draft, context)
    path = tmp_path / "cpu.onnx"
    path.write_bytes(serialize(file.model))
    onnx.checker.check_model(file.model, full_check=True)
    source = Source(path=path, input=SPEC, role="int8", target="cpu")
    found = measure_agreement(source, context.train.images[:64], 8 / 255, optimize=True, seed=0)
    assert found.clean >= 0.985
    assert found.flip_rate < 0.01


def test_the_net_is_the_float_graph_while_its_quantizers_are_off(draft, context):
    net = step_of("quant.lsq", 2).net(draft, context).eval()
    for quantizer in net.quantizers:
        quantizer.off = True
    x = torch.from_numpy(context.train.images[:8])
    with torch.no_grad():
        assert torch.allclose(net(x), OnnxModule(draft.model)(x), atol=1e-4)


def test_residual_sums_keep_eight_bits(draft, context):
    places = step_of("quant.lsq", 2).net(draft, context).places
    assert {spot.bits for spot in places.spots.values()} == {2, 8}
    adds = [node for node in places.draft.model.graph.node if node.op_type == "Add" and node.input[0] in places.spots]
    assert adds
    assert all(places.spots[name].bits == 8 for node in adds for name in node.input)


def test_training_brings_few_bits_back(draft, context):
    """The net learns the stripes with weights and activations of two bits."""
    step = step_of("quant.lsq", 2, epochs=12, lr=0.05)
    net = step.net(draft, context)
    history = step.train(net, draft, context)
    assert history.best.clean_accuracy > 0.6
    assert history.epochs[-1].loss < history.epochs[0].loss


def test_statistics_rest_after_their_share_of_the_epochs(draft, context):
    net = step_of("quant.lsq", 4).net(draft, context).train()
    x = torch.from_numpy(context.train.images[:16])
    net.after_epoch(0.5, freeze=0.6)
    net(x)
    moved = net.norms[0].mean.clone()
    net.after_epoch(0.6, freeze=0.6)
    net(x)
    assert torch.equal(net.norms[0].mean, moved)
    assert int(net.norms[0].seen) == 1


@pytest.mark.parametrize("epochs", [3, 6, 9])
def test_statistics_rest_in_the_last_third_by_default(epochs, draft, context):
    step = step_of("quant.lsq", 4, epochs=epochs)
    net = step.net(draft, context)
    rested = []
    for number in range(1, epochs + 1):
        net.after_epoch(number / epochs, freeze=step.freeze)
        rested.append(bool(net.norms[0].frozen))
    assert rested.index(True) + 1 == 2 * epochs // 3


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"distill": 1.5}, "quant.lsq needs 0 <= distill <= 1, got 1.5$"),
        ({"temperature": 0}, "quant.lsq needs temperature > 0 and finite, got 0$"),
        ({"temperature": float("inf")}, "needs temperature > 0 and finite, got inf$"),
        ({"freeze": 0}, "quant.lsq needs 0 < freeze <= 1, got 0$"),
        ({"samples": 1}, "quant.lsq needs samples >= 2, got 1$"),
    ],
)
def test_the_setting_that_is_out_of_bounds_is_named_with_its_value(bad, words):
    with pytest.raises(OptionError, match=words):
        step_of("quant.lsq", 4, **bad)
    step_of("quant.lsq", 4, distill=1, temperature=0.1, freeze=1, samples=2)


def test_steps_refuse_settings_that_make_no_sense():
    with pytest.raises(OptionError, match=r"quant\.lsq has 1 to 8 bits for weights, got 9"):
        step_of("quant.lsq", 9)
    with pytest.raises(OptionError, match=r"quant\.lsq has 1 to 8 bits for activations, got 0"):
        step_of("quant.lsq", 4, activations=0)
    with pytest.raises(OptionError, match=r"quant\.bnn has 1 bit for weights, got 2"):
        step_of("quant.bnn", 2)
    with pytest.raises(OptionError, match=r"quant\.twn has 2 bits for weights, got 3"):
        step_of("quant.twn", 3)
    with pytest.raises(OptionError, match="unknown training objective"):
        step_of("quant.lsq", 4, objective="train.nothing")
    with pytest.raises(OptionError, match="an objective that replays"):
        step_of("quant.lsq", 4, objective="train.free_at", distill=0.5)


def test_batches_of_one_image_are_refused_where_a_layer_sees_no_pixels(split):
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)]
    draft = Draft(model=capture(nn.Sequential(*layers).eval(), SPEC), input=SPEC)
    context = Context(train=split.take(np.arange(4)), validation=split.take(np.arange(2)), input=SPEC)
    with pytest.raises(OptionError, match="batch_size=3 or more, or bn=folded"):
        step_of("quant.lsq", 4, batch_size=1)(draft, context)
    step_of("quant.lsq", 4, batch_size=3)(draft, context)
    step_of("quant.lsq", 4, batch_size=1, bn="folded")(draft, context)
