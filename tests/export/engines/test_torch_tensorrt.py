"""torch-tensorrt with a stand-in for its compiler: capture, pairs of versions, batches, kept modules, refusals.

The captured programs are real, and so is their file; ``tensorrt::quantize_op`` is written here after what TensorRT does
with it, because that of nvidia-modelopt needs a GPU. Nothing here has been compiled by torch-tensorrt.
"""

from __future__ import annotations

import importlib.util
import operator
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines import torch_tensorrt as settings_module
from rctk_export.engines.torch_tensorrt_pair import check_pair
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError, GraphError, OptionError

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
from rctk_export.engines import torch_tensorrt_engine as module  # noqa: E402
from rctk_export.engines.torch_tensorrt_capture import Batches, capture, torch_module  # noqa: E402
from rctk_export.onnx_module import OnnxModule  # noqa: E402

SPEC = InputSpec(channels=2, height=4, width=4)
X = np.random.default_rng(0).random((9, *SPEC.shape), dtype=np.float32)
ZERO = np.int8(0)
PAIR = {"torch-tensorrt": "2.13.0", "torch": "2.13.0+cu130", "tensorrt": "11.0.0"}
GPU = {"gpu": "H200", "compute_capability": "9.0", "cuda_driver": "13.0", "system": "Linux x86_64"}
absent = pytest.mark.skipif(importlib.util.find_spec("modelopt") is not None, reason="nvidia-modelopt has the operator")


@pytest.fixture(scope="module")
def quantize_op():
    """Quantize and dequantize as TensorRT does: scale amax / 127, ties to even, codes from -128."""
    library = torch.library.Library("tensorrt", "FRAGMENT")
    library.define(
        "quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, bool narrow_range)"
        " -> Tensor"
    )

    def run(x, amax, num_bits, exponent_bits, unsigned, narrow_range):
        assert (num_bits, exponent_bits, unsigned, narrow_range) == (8, 0, False, False)
        assert amax.dtype == torch.float32
        assert amax.numel() == 1 or amax.shape == (len(x), *[1] * (x.ndim - 1))
        scale = amax / 127
        return ((x.float() / scale).round().clamp(-128, 127) * scale).to(x.dtype)

    library.impl("quantize_op", run, "CPU")
    torch.library.register_fake("tensorrt::quantize_op", lambda x, *given: torch.empty_like(x), lib=library)
    yield torch.ops.tensorrt.quantize_op
    library._destroy()


def net(*, quantized=False, batch="N", zero=ZERO, axis=0, kind=1):
    """Return Conv -> Relu -> Flatten -> Gemm, in float or with Q/DQ at the images, at both weights and before fc."""
    rng, make = np.random.default_rng(1), onnx.helper.make_node
    stored = {
        "w": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "b": rng.normal(size=3).astype(np.float32),
        "m": (rng.normal(size=(5, 48)) / 8).astype(np.float32),
        "c": rng.normal(size=5).astype(np.float32),
    }
    pairs, names = {}, {name: name for name in ("images", "w", "hidden", "m")}
    for name in names if quantized else ():
        weight = stored.get(name)
        if weight is None:
            scale, zeros, along = np.float32(1 / 50), zero, {}
        else:
            others = tuple(i for i in range(weight.ndim) if i != axis)
            scale = (np.abs(weight).max(axis=others) / 127).astype(np.float32)
            zeros, along = np.zeros(len(scale), dtype=np.int8), {"axis": axis}
        stored |= {f"{name}.scale": scale, f"{name}.zero": zeros}
        grid = [f"{name}.scale", f"{name}.zero"]
        pairs[name] = [
            make("QuantizeLinear", [name, *grid], [f"{name}.q"], name=f"{name}.quantize", **along),
            make("DequantizeLinear", [f"{name}.q", *grid], [f"{name}.dq"], name=f"{name}.dequantize", **along),
        ]
        names[name] = f"{name}.dq"
    nodes = [
        *(*pairs.get("images", []), *pairs.get("w", [])),
        make("Conv", [names["images"], names["w"], "b"], ["sum"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["sum"], ["positive"], name="relu"),
        make("Flatten", ["positive"], ["hidden"], name="flatten"),
        *(*pairs.get("hidden", []), *pairs.get("m", [])),
        make("Gemm", [names["hidden"], names["m"], "c"], ["logits"], name="fc", transB=1),
    ]
    value = onnx.helper.make_tensor_value_info
    ends = [value("images", kind, [batch, *SPEC.shape])], [value("logits", 1, [batch, 5])]
    graph = onnx.helper.make_graph(nodes, "net", *ends, [onnx.numpy_helper.from_array(v, n) for n, v in stored.items()])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def twin_logits(model):
    with torch.no_grad():
        return OnnxModule(model)(torch.from_numpy(X)).numpy()


def run(inside, images=X):
    with torch.no_grad():
        return inside(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_the_captured_module_computes_what_the_twin_computes(quantize_op, quantized):
    model = net(quantized=quantized)
    program = capture(torch_module(model, torch.zeros(4, *SPEC.shape)), torch.zeros(4, *SPEC.shape), Batches(1, 2, 4))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count("tensorrt.quantize_op.default") == (4 if quantized else 0)
    for count in (1, 3, 4):
        found = run(program.module(), X[:count])
        np.testing.assert_allclose(found, twin_logits(model)[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_half_precision_leaves_scales_and_logits_in_float32(quantize_op, quantized):
    model = net(quantized=quantized)
    inside = torch_module(model, torch.zeros(4, *SPEC.shape), half=True)
    kinds = [buffer.dtype for buffer in inside.buffers() if buffer.is_floating_point()]
    assert kinds.count(torch.float32) == (2 if quantized else 0)  # one vector of scales per weight
    assert torch.float16 in kinds
    found, expected = run(inside), twin_logits(model)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()  # 10 bits of mantissa, flipped codes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zero": np.int8(3)}, "its zero point is not 0.*--target tensorrt"),
        ({"zero": np.uint8(128)}, "its zero point is not 0.*--target tensorrt"),
        ({"axis": 1}, "scales along axis 1.*--target tensorrt"),
    ],
)
def test_grids_that_tensorrt_does_not_have_are_refused(quantize_op, change, words):
    with pytest.raises(GraphError, match=words):
        run(torch_module(net(quantized=True, **change), torch.zeros(4, *SPEC.shape)))


def test_a_graph_that_cannot_take_other_batches_says_what_to_give():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.reshape(4, -1)

    with pytest.raises(EngineError, match="min_batch, opt_batch and max_batch the same number"):
        capture(Fixed(), torch.zeros(4, *SPEC.shape), Batches(1, 2, 4))


class Compiler:
    """torch_tensorrt as far as the engine calls it; programs stay what they are."""

    def __init__(self):
        self.builds, self.fail, self.batches = [], None, []
        self.dynamo = SimpleNamespace(compile=self.compile)

    def Input(self, **given):
        return given

    def compile(self, exported_program, *, arg_inputs, device, use_explicit_typing=False, **options):
        if self.fail:
            raise self.fail
        self.builds.append((arg_inputs[0], options, use_explicit_typing))
        return Compiled(exported_program, self)

    def save(self, compiled, path, *, output_format, retrace):
        assert (output_format, retrace) == ("exported_program", False)
        torch.export.save(compiled.program, path)

    def load(self, path):
        return torch.export.load(path)


class Compiled:
    def __init__(self, program, world):
        self.program, self.world, self.run = program, world, program.module()
        nodes = [("placeholder", "images"), ("call_module", "_run_on_acc_0"), ("output", "output")]
        self.graph = SimpleNamespace(nodes=[SimpleNamespace(op=op, target=name, name=name) for op, name in nodes])

    def __call__(self, images):
        self.world.batches.append(len(images))
        return (self.run(images),)


@pytest.fixture
def compiler(monkeypatch, quantize_op):
    compiler = Compiler()
    runtime = ModuleType("torch_tensorrt")
    for name in ("Input", "dynamo", "save", "load"):
        setattr(runtime, name, getattr(compiler, name))
    monkeypatch.setitem(sys.modules, "torch_tensorrt", runtime)
    for name in ("modelopt", "modelopt.torch", "modelopt.torch.quantization"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(settings_module, "versions", lambda: dict(PAIR))
    monkeypatch.setattr(module, "gpu", lambda index: torch.device("cpu"))
    monkeypatch.setattr(module, "gpu_facts", lambda index: dict(GPU))
    return compiler


def source(path, model, **given):
    onnx.save(model, path)
    return Source(path=path, input=SPEC, **given)


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_any_number_of_images_in_the_batches_that_were_compiled(compiler, tmp_path, quantized):
    model = net(quantized=quantized)
    opened = ENGINES.build("torch-tensorrt:min_batch=2,opt_batch=3,max_batch=4").open(source(tmp_path / "m", model))
    with opened as engine:
        for count in (0, 1, 4, 9):
            found = engine.predict(X[:count])
            assert found.shape == (count, 5)
            np.testing.assert_allclose(found, twin_logits(model)[:count], rtol=1e-5, atol=1e-5)
        found[:] = 7
        assert not (engine.predict(X) == 7).any()
    assert set(compiler.batches) <= {2, 3, 4}
    (entry, options, typed), *_ = compiler.builds
    assert [entry[f"{which}_shape"][0] for which in ("min", "opt", "max")] == [2, 3, 4]
    assert typed
    assert options["require_full_compilation"]
    assert options["disable_tf32"]
    with pytest.raises(EngineError, match="closed; open it again"):
        engine.predict(X)


def test_a_graph_of_fixed_batch_is_compiled_for_it(compiler, tmp_path):
    with ENGINES.build("torch-tensorrt").open(source(tmp_path / "m", net(batch=4))) as engine:
        assert engine.predict(X).shape == (9, 5)
    assert compiler.batches == [4, 4, 4]


def test_a_kept_module_is_found_by_what_it_depends_on_and_by_nothing_else(compiler, tmp_path, monkeypatch):
    model, kept = net(quantized=True), tmp_path / "kept"
    file = source(tmp_path / "m.onnx", model)

    def opened(text=""):
        with ENGINES.build(f"torch-tensorrt:max_batch=4,cache={kept}{text}").open(file) as engine:
            np.testing.assert_allclose(engine.predict(X), twin_logits(model), rtol=1e-5, atol=1e-5)
        return len(compiler.builds)

    assert [opened(), opened()] == [1, 1]
    assert opened(",optimization_level=5") == 2
    monkeypatch.setattr(settings_module, "versions", lambda: {**PAIR, "tensorrt": "11.1.0"})
    assert opened() == 3
    monkeypatch.setattr(settings_module, "versions", lambda: dict(PAIR))
    assert opened() == 3
    for path in kept.rglob(module.SAVED):
        path.write_bytes(b"other")
    with pytest.raises(EngineError, match="is not the module that was written there; delete"):
        opened()
    for path in kept.rglob(module.SAVED):
        path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        opened()


def test_what_cannot_be_compiled_is_one_line(compiler, tmp_path):
    compiler.fail = ValueError("no\nconverter")
    file = source(tmp_path / "m.onnx", net())
    with pytest.raises(EngineError, match="cannot compile the file: no converter"):
        ENGINES.build("torch-tensorrt").open(file)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"m\.onnx"):
        ENGINES.build("torch-tensorrt").open(file)
    pixels = source(tmp_path / "p.onnx", net(kind=onnx.TensorProto.UINT8))
    with pytest.raises(EngineError, match="float32 images only"):
        ENGINES.build("torch-tensorrt").open(pixels)
    with pytest.raises(EngineError, match="uint8 activations"):
        ENGINES.build("torch-tensorrt").open(source(tmp_path / "c.onnx", net(), target="cpu"))


def test_a_failure_while_running_is_one_line(compiler, tmp_path):
    def fail(images):
        raise RuntimeError("out of\nmemory")

    with ENGINES.build("torch-tensorrt").open(source(tmp_path / "m.onnx", net())) as engine:
        engine._module = fail
        with pytest.raises(EngineError, match="failed on a batch of 9: out of memory"):
            engine.predict(X)


def test_nodes_that_stay_in_pytorch_are_named():
    graph = torch.fx.Graph()
    images = graph.placeholder("images")
    inside = graph.call_module("_run_on_acc_0", (images,))
    first = graph.call_function(operator.getitem, (inside, 0))
    graph.output(first)
    module.refuse_rest(SimpleNamespace(graph=graph))
    with graph.inserting_before(first):
        graph.call_function(torch.relu, (inside,))
    with pytest.raises(EngineError, match="leaves relu to PyTorch"):
        module.refuse_rest(SimpleNamespace(graph=graph))
    plain = torch.fx.symbolic_trace(torch.nn.Flatten())
    with pytest.raises(EngineError, match="to PyTorch"):
        module.refuse_rest(plain)


def test_settings_fit_every_version_of_the_compiler():
    settings = ENGINES.build("torch-tensorrt:workspace_mib=2,sparsity=true,optimization_level=4")
    newest = settings.options({"device"})
    assert newest == {
        "require_full_compilation": True,
        "min_block_size": 1,
        "disable_tf32": True,
        "workspace_size": 2 * 2**20,
        "optimization_level": 4,
        "sparse_weights": True,
    }
    assert settings.options({"use_explicit_typing"}) == {**newest, "use_explicit_typing": True}  # 2.8 to 2.12


@pytest.mark.parametrize(
    "text", ["precision_rest=bf16", "min_batch=9,max_batch=4", "optimization_level=6", "device=-1"]
)
def test_impossible_settings_are_refused(text):
    with pytest.raises(OptionError):
        ENGINES.build(f"torch-tensorrt:{text}")


ASKED = ["torch<2.14.0,>=2.13.0", "tensorrt<11.1.0,>=11.0.0", "tensorrt-cu13-libs<11.1.0,>=11.0.0", "numpy", "psutil"]
JETSON = [
    'torch<2.9.0,>=2.8.0; platform_machine != "none"',
    'tensorrt<10.13.0,>=10.12.0; platform_machine == "none"',
    'tensorrt<10.4.0,>=10.3.0; platform_machine != "none"',
    'nvidia-modelopt[all]>=0.27.1; extra == "quantization"',
]


def test_a_pair_that_belongs_together_has_its_versions():
    here = {"torch": "2.13.0+cu130", "tensorrt": "11.0.0.114"}
    assert check_pair("2.13.0", ASKED, here) == {"torch-tensorrt": "2.13.0", **here}
    assert check_pair("2.8.0", JETSON, {"torch": "2.8.0", "tensorrt": "10.3.0"})["tensorrt"] == "10.3.0"


@pytest.mark.parametrize(
    ("own", "here", "words"),
    [
        (
            "2.13.0",
            {"torch": "2.14.0", "tensorrt": "11.0.0"},
            r"needs torch<2\.14\.0,>=2\.13\.0, here is torch 2\.14",
        ),
        (
            "2.13.0",
            {"torch": "2.13.0", "tensorrt": "10.13.3"},
            r"needs tensorrt<11\.1.*, here is tensorrt 10\.13",
        ),
        ("2.13.0", {"torch": "2.13.0"}, "here without tensorrt"),
        ("2.13.0", {"tensorrt": "11.0.0"}, "here without torch"),
        ("2.5.0", {"torch": "2.5.0", "tensorrt": "10.3.0"}, r"2\.5\.0 is too old, rctk needs 2\.8"),
    ],
)
def test_what_does_not_belong_together_is_named_with_both_versions(own, here, words):
    with pytest.raises(EngineUnavailableError, match=words) as caught:
        check_pair(own, ASKED, here)
    assert "pip install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_answered_before_torch_is_imported(tmp_path):
    if importlib.util.find_spec("torch_tensorrt") is not None:
        pytest.skip("torch-tensorrt is installed")
    code = (
        "import sys; from pathlib import Path\n"
        "from rctk_export.engine import Source\n"
        "from rctk_export.engines import ENGINES\n"
        "from rctk_export.input_spec import InputSpec\n"
        "from rctk_kernels.errors import EngineUnavailableError\n"
        "source = Source(path=Path('m.onnx'), input=InputSpec(channels=1, height=2, width=2))\n"
        "try: ENGINES.build('torch-tensorrt').open(source)\n"
        "except EngineUnavailableError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'rctk[torch-tensorrt]'" in done.stdout
    assert done.stdout.endswith("False\n")


@absent
def test_int8_files_need_modelopt(compiler, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization", None)
    with pytest.raises(EngineUnavailableError, match="nvidia-modelopt, which int8 files need, cannot be imported"):
        ENGINES.build("torch-tensorrt").open(source(tmp_path / "m.onnx", net(quantized=True)))
    ENGINES.build("torch-tensorrt").open(source(tmp_path / "f.onnx", net()))


def test_a_gpu_that_pytorch_does_not_see_is_named():
    with pytest.raises(EngineUnavailableError, match="no number 99"):
        module.gpu(99)


@pytest.mark.gpu
@pytest.mark.parametrize("rest", ["fp32", "fp16"])
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_on_a_gpu_the_compiled_and_the_loaded_module_agree_with_the_twin(tmp_path, quantized, rest):
    """Nothing has run this yet."""
    model = net(quantized=quantized)
    text = f"torch-tensorrt:max_batch=4,precision_rest={rest},cache={tmp_path / 'kept'}"
    try:
        opened = ENGINES.build(text).open(source(tmp_path / "m.onnx", model))
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    expected = twin_logits(model)
    with opened as engine:
        found = engine.predict(X)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    with ENGINES.build(text).open(source(tmp_path / "m.onnx", model)) as engine:
        assert np.array_equal(engine.predict(X), found)
