"""OpenVINO: what runs in int8, how well it agrees with the twin, and that nothing is chosen behind the user's back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, OptionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
torch = pytest.importorskip("torch")
from rctk.data.read import read_split  # noqa: E402
from rctk.data.split import Split  # noqa: E402
from rctk.exporting.export import ExportSettings, quantize  # noqa: E402
from rctk.progress import Silent  # noqa: E402
from rctk_export.capture import capture  # noqa: E402
from rctk_export.engines.openvino import OpenVINO, _read, runtime_layers  # noqa: E402
from rctk_export.onnx_files import serialize  # noqa: E402

DIGITS = InputSpec(channels=1, height=8, width=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small trained network on digits: float file, its int8 files, and the images it has not seen."""
    split = read_split("digits:train")
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            *(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU()),
            *(torch.nn.Flatten(), torch.nn.Linear(256, 10)),
        )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for start in range(0, 64 * 60, 64):
        rows = slice(start % 1280, start % 1280 + 64)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    model = capture(net.eval(), DIGITS)
    folder = tmp_path_factory.mktemp("openvino")
    sources = {"float": Source(path=folder / "float.onnx", input=DIGITS)}
    sources["float"].path.write_bytes(serialize(model))
    for made in quantize(model, split.take(np.arange(128)), ExportSettings(targets=("cpu",)), Silent()):
        path = folder / f"{made.target}.onnx"
        path.write_bytes(serialize(made.model))
        sources[made.target] = Source(path=path, input=DIGITS, role="int8", target=made.target)
    return sources, read_split("digits").images


def predict(settings, source, images):
    with settings.open(source) as engine:
        return engine.predict(images)


def test_every_layer_of_our_file_runs_in_int8_under_its_own_name(files):
    sources, _ = files
    layers = runtime_layers(sources["cpu"].path)
    weighted = [node.name for node in onnx.load(sources["cpu"].path).graph.node if node.op_type in {"Conv", "Gemm"}]
    assert [layer.name for layer in layers] == weighted
    assert len(layers) == 3
    assert all(layer.int8 for layer in layers)


def test_the_float_file_runs_in_float32_and_not_in_bfloat16(files):
    sources, images = files
    assert {layer.precision for layer in runtime_layers(sources["float"].path)} == {"f32"}
    expected = predict(ENGINES.build("torch"), sources["float"], images)
    np.testing.assert_allclose(predict(OpenVINO(), sources["float"], images), expected, atol=1e-3)


def test_int8_agrees_with_the_twin(files):
    sources, images = files
    twin = predict(ENGINES.build("twin"), sources["cpu"], images)
    found = predict(OpenVINO(), sources["cpu"], images)
    assert (found.argmax(axis=1) == twin.argmax(axis=1)).mean() >= 0.995


class Block(torch.nn.Module):
    """A residual block of one of the forms that OpenVINO computes in one kernel."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem, self.one, self.two = (torch.nn.Conv2d(n, 8, 3, padding=1) for n in (1, 8, 8))
        self.wise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x):
        start = torch.relu(self.stem(x))
        ends = {
            "skip": lambda: start + self.two(torch.relu(self.one(start))),
            "three convolutions": lambda: self.one(start) + self.two(start) + self.wise(start),
            "relu in front": lambda: torch.relu(self.two(self.one(start))) + start,
            "depthwise": lambda: self.wise(self.one(start)) + start,
        }
        end = torch.relu(self.two(ends[self.form]()))
        return self.head(end.mean(dim=(2, 3)))


FORMS = ("skip", "three convolutions", "relu in front", "depthwise")


@pytest.mark.parametrize("form", FORMS)
def test_its_own_target_means_in_openvino_what_the_file_says(form, tmp_path):
    """Rounding that is left out moves the logits of most images; sums in another order flip codes of a few."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = capture(Block(form).eval(), DIGITS)
    images, rows = np.random.default_rng(0).random((64, *DIGITS.shape), dtype=np.float32), np.arange(64)
    split = Split(name="random", images=images, labels=0 * rows, classes=(), indices=rows)  # few ties, unlike digits
    (made,) = quantize(model, split, ExportSettings(targets=("openvino",)), Silent())
    source = Source(path=tmp_path / "openvino.onnx", input=DIGITS, role="int8", target="openvino")
    source.path.write_bytes(serialize(made.model))
    expected = predict(ENGINES.build("reference"), source, images)
    found = predict(OpenVINO(), source, images)
    same = np.abs(found - expected).max(axis=1) < 1e-5 * np.ptp(expected)
    assert same.mean() > 0.9
    assert all(layer.int8 for layer in runtime_layers(source.path))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_precision_are_what_was_asked_for(files, threads):
    sources, _ = files
    if len(os.sched_getaffinity(0)) < threads:
        pytest.skip(f"fewer than {threads} processors")
    with OpenVINO(threads=threads).open(sources["cpu"]) as engine:
        asked = {name: engine._compiled.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
        assert asked == {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        assert engine._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert engine._compiled.get_property("ENABLE_CPU_PINNING") is False


def test_more_threads_than_processors_are_refused(files):
    sources, _ = files
    many = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(EngineError, match=rf"threads=\d+ though {many} were asked for.*give threads=\d+$") as caught:
        OpenVINO(threads=many).open(sources["cpu"])
    fewer = int(str(caught.value).rpartition("=")[2])
    with OpenVINO(threads=fewer).open(sources["cpu"]) as engine:
        assert engine.predict(np.zeros((1, *DIGITS.shape), dtype=np.float32)).shape == (1, 10)


def test_an_engine_lists_its_own_layers_until_it_is_closed(files):
    sources, _ = files
    with OpenVINO(batch=4).open(sources["cpu"]) as engine:
        found = [(layer.name, layer.int8) for layer in engine.layers()]  # kernels depend on the batch
        assert found == [(layer.name, True) for layer in runtime_layers(sources["cpu"].path)]
    with pytest.raises(EngineError, match="closed"):
        engine.layers()


def test_a_file_in_its_own_format_answers_the_same(files, tmp_path):
    import openvino

    sources, images = files
    path = tmp_path / "model.xml"
    openvino.save_model(_read(sources["cpu"].path), path, compress_to_fp16=False)
    own = Source(path=path, input=DIGITS)
    assert np.array_equal(predict(OpenVINO(), own, images), predict(OpenVINO(), sources["cpu"], images))
    assert all(layer.int8 for layer in runtime_layers(path))


def test_an_int8_file_of_nncf_is_opened_and_runs_in_int8(files, tmp_path):
    nncf = pytest.importorskip("nncf")
    sources, images = files
    data = nncf.Dataset([{"images": images[i : i + 1]} for i in range(64)])
    path = tmp_path / "nncf.onnx"
    onnx.save(nncf.quantize(onnx.load(sources["float"].path), data, subset_size=64), path)
    assert any(layer.int8 for layer in runtime_layers(path))
    found = predict(OpenVINO(), Source(path=path, input=DIGITS), images)
    expected = predict(OpenVINO(), sources["float"], images)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.97


def test_a_fixed_batch_of_the_file_is_not_overruled(files, tmp_path):
    sources, _ = files
    model = onnx.load(sources["float"].path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    with pytest.raises(EngineError, match="takes 4 images a run; leave batch=2 out"):
        OpenVINO(batch=2).open(Source(path=tmp_path / "four.onnx", input=DIGITS))


@pytest.mark.parametrize(
    ("settings", "message"), [({"threads": 0}, "threads must be 1"), ({"batch": -1}, "batch must")]
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        OpenVINO(**settings)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EngineError, match="no model file at"):
        runtime_layers(Path(tmp_path / "none.onnx"))


def python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_importing_it_warns_of_nothing_and_brings_no_torch():
    done = python("import sys, rctk_export.engines.openvino; print({'torch', 'onnx', 'pandas'} & set(sys.modules))")
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


def test_without_openvino_the_install_line_is_named():
    done = python(
        "import sys; sys.modules['openvino'] = None\n"
        "from rctk_export.engines import ENGINES\n"
        "from rctk_kernels.errors import EngineUnavailableError\n"
        "try: ENGINES.build('openvino')\n"
        "except EngineUnavailableError as error: print(error)"
    )
    assert "pip install 'rctk[openvino]'" in done.stdout, done.stderr
