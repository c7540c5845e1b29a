"""Batches, gradients, observation, rewriting and the memory for dequantized weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import GraphError  # noqa: E402


def small_net(tools, batch="n"):
    """Normalise, convolve, pool, classify; smooth, so that finite differences hold."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Conv", ["centred", "w1", "b1"], ["c"], pads=[1, 0, 0, 1], strides=[2, 1]),
        helper.make_node("Softplus", ["c"], ["s"]),
        helper.make_node("AveragePool", ["s"], ["p"], kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], transB=1),
    ]
    constants = {
        "mean": rng.normal(size=(1, 2, 1, 1)),
        "w1": rng.normal(size=(3, 2, 3, 2)),
        "b1": rng.normal(size=3),
        "w2": rng.normal(size=(4, 18)),
        "b2": rng.normal(size=4),
    }
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    return tools.graph_of(nodes, constants, shape=(2, 6, 6), batch=batch)


def int8_layer(tools):
    """y = x @ (codes * scale): one dequantized weight."""
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"codes": np.array([[2, -4]], np.int8), "scale": np.array([0.5, 0.25], np.float32)}
    return tools.graph_of(nodes, constants, shape=(1,))


def test_gradients_agree_with_finite_differences(tools):
    module = OnnxModule(small_net(tools), mode="exact")
    x = torch.from_numpy(tools.images((2, 6, 6), count=2)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module.observe(x, ["y"])["y"], (x,))
    weights = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def run(*values):
        replaced = dict(zip(names, values, strict=True))
        return torch.func.functional_call(
            Observed(module), {f"inner.{k}": v for k, v in replaced.items()}, (x.detach(),)
        )

    assert torch.autograd.gradcheck(run, tuple(weights))


class Observed(torch.nn.Module):
    """The logits of a module in the float type it computes in."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner.observe(x, ["y"])["y"]


def test_fast_gradients_are_the_exact_ones_to_float32(tools):
    grads = {}
    for mode in ("fast", "exact"):
        module = OnnxModule(small_net(tools), mode=mode)
        x = torch.from_numpy(tools.images((2, 6, 6))).requires_grad_()
        module(x).square().sum().backward()
        grads[mode] = [x.grad, *[p.grad.float() for p in module.parameters()]]
    for fast, exact in zip(grads["fast"], grads["exact"], strict=True):
        torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-4)


def test_training_a_parameter_changes_the_answer_and_the_initializer(tools):
    module = OnnxModule(small_net(tools))
    x = torch.from_numpy(tools.images((2, 6, 6)))
    before = module(x)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4)
    before.square().sum().backward()
    optimizer.step()
    assert module(x).square().sum() < before.square().sum()
    assert not np.array_equal(
        module.initializers["w1"].detach().numpy(), onnx.numpy_helper.to_array(small_net(tools).graph.initializer[1])
    )


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_any_batch_size_gives_rows_that_do_not_depend_on_each_other(tools, mode):
    module = OnnxModule(small_net(tools), mode=mode)
    x = torch.from_numpy(tools.images((2, 6, 6), count=5))
    together = module(x)
    assert together.shape == (5, 4)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, torch.cat([module(one[None]) for one in x]))
    assert module(x[:0]).shape == (0, 4)


def test_a_batch_size_in_the_file_is_followed_where_only_a_reshape_names_it(tools):
    nodes = [helper.make_node("Reshape", ["x", "target"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    constants = {"target": np.array([2, 6]), "w": np.eye(6, 3, dtype=np.float32)}
    module = OnnxModule(tools.graph_of(nodes, constants, shape=(2, 3), batch=2))
    x = torch.from_numpy(tools.images((2, 3), count=5))
    seen = []
    module.rewrite["x"] = lambda images: seen.append(len(images)) or images
    assert torch.equal(module(x), x.flatten(1)[:, :3])
    assert seen == [5]  # observers never see the images that find this out


def mixing(tools):
    """Each image minus the mean of its batch of 2: other batches would give other answers."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    return tools.graph_of(nodes, {"axes": np.array([0])}, shape=(3,), batch=2)


def test_a_graph_that_needs_its_batch_size_gets_it(tools):
    module = OnnxModule(mixing(tools))
    x = torch.from_numpy(tools.images((3,), count=5))
    filled = torch.cat([x, x[:1]]).reshape(3, 2, 3)
    expected = (filled - filled.mean(dim=1, keepdim=True)).reshape(6, 3)[:5]
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.observe(x, ["y"])["y"], expected)


def test_images_of_another_size_are_refused_with_both_shapes(tools):
    module = OnnxModule(small_net(tools))
    with pytest.raises(GraphError, match=r"\(N, 2, 6, 6\), got \(1, 2, 5, 6\)"):
        module(torch.zeros(1, 2, 5, 6))


def test_an_output_without_a_row_per_image_is_refused(tools):
    module = OnnxModule(tools.one_node("ReduceSum", np.array([0]), shape=(3,), keepdims=0))
    with pytest.raises(GraphError, match=r"4 images gave an output \(3,\)"):
        module(torch.zeros(4, 3))


def test_axes_of_size_one_behind_the_classes_are_dropped(tools):
    assert OnnxModule(tools.one_node("GlobalAveragePool", shape=(3, 4, 4)))(torch.zeros(2, 3, 4, 4)).shape == (2, 3)


def test_observe_returns_inner_tensors_the_input_and_initializers(tools):
    module = OnnxModule(small_net(tools))
    x = torch.from_numpy(tools.images((2, 6, 6)))
    seen = module.observe(x, {"x", "c", "f", "mean", "y"})
    assert set(seen) == {"x", "c", "f", "mean", "y"}
    assert torch.equal(seen["x"], x)
    assert torch.equal(seen["y"], module(x))
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x - seen["mean"], (0, 1, 1, 0)),
        module.initializers["w1"],
        module.initializers["b1"],
        stride=(2, 1),
    )
    torch.testing.assert_close(seen["c"], expected)
    with pytest.raises(GraphError, match=r"\['ghost'\] cannot be observed"):
        module.observe(x, ["ghost"])


def test_observe_computes_no_more_than_it_must(tools):
    module = OnnxModule(small_net(tools))
    module.rewrite["y"] = lambda _value: pytest.fail("the last tensor was computed")
    module.observe(torch.zeros(1, 2, 6, 6), ["c"])


def test_rewrite_replaces_a_tensor_for_all_its_readers(tools):
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "r"], ["y"])]
    module = OnnxModule(tools.graph_of(nodes, {}, shape=(1,)))
    calls = []
    module.rewrite["r"] = lambda value: calls.append(value) or value + 10
    assert module(torch.tensor([[1.0]])).item() == 22
    assert len(calls) == 1
    del module.rewrite["r"]
    assert module(torch.tensor([[1.0]])).item() == 2


def test_rewrite_reaches_the_input_weights_and_the_output(tools):
    module = OnnxModule(small_net(tools))
    x = torch.from_numpy(tools.images((2, 6, 6)))
    plain = module(x)
    module.rewrite["w2"] = lambda weight: 2 * weight
    module.rewrite["b2"] = lambda bias: 2 * bias
    torch.testing.assert_close(module(x), 2 * plain)
    module.rewrite["y"] = lambda logits: logits + 1
    torch.testing.assert_close(module(x), 2 * plain + 1)
    module.rewrite = {"x": lambda images: images * 0}
    torch.testing.assert_close(module(x), module(x * 0))


def test_a_learnable_rewrite_gets_its_gradient(tools):
    module, scale = OnnxModule(small_net(tools)), torch.ones((), requires_grad=True)
    module.rewrite["w1"] = lambda weight: weight * scale
    module(torch.zeros(1, 2, 6, 6)).sum().backward()
    assert scale.grad.abs() > 0
    assert module.initializers["w1"].grad.abs().sum() > 0


def test_a_rewrite_of_no_tensor_is_an_error(tools):
    module = OnnxModule(small_net(tools))
    module.rewrite["conv1.weight"] = lambda weight: weight
    with pytest.raises(GraphError, match=r"\['conv1.weight'\] cannot be rewritten"):
        module(torch.zeros(1, 2, 6, 6))


def test_dequantized_weights_are_computed_once(tools, monkeypatch):
    module, calls = OnnxModule(int8_layer(tools)), []
    run = module._do
    monkeypatch.setattr(module, "_do", lambda step, values: calls.append(step.names[0]) or run(step, values))
    x = torch.tensor([[1.0]])
    for context in (torch.inference_mode, torch.enable_grad, torch.no_grad):
        with context():
            assert module(x).tolist() == [[1, -1]]
    assert calls.count("w") == 1
    y = module(x.requires_grad_())
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.item() == 0  # 2 * 0.5 - 4 * 0.25


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_dequantized_weights_follow_changes_of_what_they_depend_on(tools, mode):
    module = OnnxModule(int8_layer(tools), mode=mode)
    x = torch.tensor([[1.0]])
    assert module(x).tolist() == [[1, -1]]
    module.initializers["scale"].mul_(2)
    assert module(x).tolist() == [[2, -2]]
    module.load_state_dict({key: value * 2 for key, value in module.state_dict().items()})
    assert module(x).tolist() == [[8, -8]]
    module.rewrite["w"] = lambda weight: weight + 1
    assert module(x).tolist() == [[9, -7]]
    module.rewrite.clear()
    twin = copy.deepcopy(module)
    twin.initializers["codes"].zero_()
    assert twin(x).tolist() == [[0, 0]]
    assert module(x).tolist() == [[8, -8]]


def test_a_frozen_float_weight_behind_a_transpose_is_kept_and_a_trained_one_is_not(tools):
    nodes = [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    module = OnnxModule(tools.graph_of(nodes, {"w": np.array([[1.0], [2.0]], np.float32)}, shape=(1,)))
    x = torch.tensor([[1.0]])
    for _ in range(2):
        module(x).sum().backward()
    assert module.initializers["w"].grad.tolist() == [[2], [2]]
    module.requires_grad_(requires_grad=False)
    assert module(x).tolist() == [[1, 2]]
    module.initializers["w"].mul_(3)
    assert module(x).tolist() == [[3, 6]]


def test_training_mode_changes_nothing(tools):
    module = OnnxModule(small_net(tools))
    x = torch.from_numpy(tools.images((2, 6, 6)))
    assert torch.equal(module.train()(x), module.eval()(x))


def test_a_second_gradient_exists(tools):
    module = OnnxModule(small_net(tools))
    x = torch.from_numpy(tools.images((2, 6, 6), count=1)).requires_grad_()
    (grad,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert second.abs().sum() > 0
