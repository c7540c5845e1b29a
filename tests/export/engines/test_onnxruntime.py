import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from rctk_export.engines import onnxruntime as module  # noqa: E402

SPEC = InputSpec(channels=1, height=2, width=2)


def save(path, nodes, output="logits", shape=("N", 4), kind=onnx.TensorProto.FLOAT):
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 1, 2, 2])],
        [onnx.helper.make_tensor_value_info(output, kind, shape)],
    )
    imports = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.example", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


@pytest.fixture
def source(tmp_path):
    nodes = [onnx.helper.make_node("Flatten", ["images"], ["logits"])]
    return Source(path=save(tmp_path / "m.onnx", nodes), input=SPEC)


def test_the_session_has_the_threads_that_were_asked_for_and_no_spinning(source):
    with module.OnnxRuntime(threads=2).open(source) as engine:
        options = engine._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert engine._session.get_providers() == ["CPUExecutionProvider"]
        assert engine.optimized
        assert engine.notes == ()


def test_settings_are_read_from_text():
    settings = ENGINES.build("onnxruntime:threads=2,optimize=false,spinning=yes")
    assert settings == module.OnnxRuntime(threads=2, optimize=False, spinning=True)


def test_bad_settings_are_refused():
    with pytest.raises(OptionError, match="threads must be 1 or more, got 0"):
        module.OnnxRuntime(threads=0)
    with pytest.raises(OptionError, match="unknown"):
        ENGINES.build("onnxruntime:provider=gpu")
    with pytest.raises(OptionError, match="unknown provider 'gpu'"):
        module.OnnxRuntime(provider="gpu")


def test_a_provider_that_is_not_there_is_refused_and_never_replaced(source):
    absent = next(n for n, p in module.PROVIDERS.items() if p not in module.ort.get_available_providers())
    with pytest.raises(EngineUnavailableError, match=f"has no {module.PROVIDERS[absent]}"):
        module.OnnxRuntime(provider=absent).open(source)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_old_spelling_of_nvidias_providers_names_their_engine(name):
    with pytest.raises(OptionError, match=f"write --engine onnxruntime-{name}"):
        ENGINES.build(f"onnxruntime:provider={name}")


def test_it_tells_where_its_nodes_run(source):
    with module.OnnxRuntime().open(source) as engine:
        assert engine.placement() == {"CPUExecutionProvider": 1}


def test_an_unknown_operator_gives_one_line(tmp_path):
    nodes = [onnx.helper.make_node("Strange", ["images"], ["logits"], domain="com.example")]
    with pytest.raises(EngineError, match=r"cannot load .*Strange") as caught:
        module.OnnxRuntime().open(Source(path=save(tmp_path / "m.onnx", nodes), input=SPEC))
    assert "\n" not in str(caught.value)


def test_a_failure_while_running_gives_one_line_and_prints_nothing(tmp_path, capfd):
    nodes = [
        onnx.helper.make_node("Constant", [], ["shape"], value_ints=[-1, 3]),
        onnx.helper.make_node("Reshape", ["images", "shape"], ["logits"]),
    ]
    source = Source(path=save(tmp_path / "m.onnx", nodes, shape=("N", 3)), input=SPEC)
    with module.OnnxRuntime().open(source) as engine, pytest.raises(EngineError, match="on a batch of 1") as caught:
        engine.predict(np.zeros((1, 1, 2, 2), dtype=np.float32))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_outputs_that_are_no_logits_are_refused(tmp_path):
    nodes = [onnx.helper.make_node("Relu", ["images"], ["logits"])]
    source = Source(path=save(tmp_path / "m.onnx", nodes, shape=None), input=SPEC)
    with module.OnnxRuntime().open(source) as engine, pytest.raises(EngineError, match=r"expected logits \(2, K\)"):
        engine.predict(np.zeros((2, 1, 2, 2), dtype=np.float32))


def test_double_logits_leave_as_float32_but_cannot_be_bound(tmp_path):
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["flat"]),
        onnx.helper.make_node("Cast", ["flat"], ["logits"], to=onnx.TensorProto.DOUBLE),
    ]
    path = save(tmp_path / "m.onnx", nodes, kind=onnx.TensorProto.DOUBLE)
    source = Source(path=path, input=SPEC)
    with module.OnnxRuntime().open(source) as engine:
        assert engine.predict(np.ones((1, 1, 2, 2), dtype=np.float32)).dtype == np.float32
    with pytest.raises(EngineError, match="io_binding needs"):
        module.OnnxRuntime(io_binding=True).open(source)


@pytest.mark.parametrize(
    ("target", "optimized", "notes"), [("cpu-mirror", False, 1), ("cpu", True, 1), ("tensorrt", True, 0), ("", True, 0)]
)
def test_without_vnni_the_mirror_runs_unoptimised_and_int8_files_say_so(source, monkeypatch, target, optimized, notes):
    monkeypatch.setattr(module, "saturates_u8s8", lambda: True)
    with module.OnnxRuntime().open(Source(path=source.path, input=SPEC, target=target)) as engine:
        assert engine.optimized is optimized
        assert len(engine.notes) == notes
        assert all("VNNI" in note for note in engine.notes)


def test_with_vnni_the_mirror_is_optimised(source, monkeypatch):
    monkeypatch.setattr(module, "saturates_u8s8", lambda: False)
    with module.OnnxRuntime().open(Source(path=source.path, input=SPEC, target="cpu-mirror")) as engine:
        assert engine.optimized
        assert engine.notes == ()


@pytest.mark.parametrize(
    ("role", "target", "settings", "optimized"),
    [
        ("int8", "", {}, False),
        ("int8", "tensorrt", {}, False),
        ("float", "cpu", {}, False),
        ("float", "", {}, True),
        ("int8", "cpu", {"optimize": False}, False),
    ],
)
def test_a_runtime_that_spoils_int8_runs_such_files_unoptimised(source, monkeypatch, role, target, settings, optimized):
    monkeypatch.setattr(module, "spoils_int8", lambda _: True)
    file = Source(path=source.path, input=SPEC, role=role, target=target)
    with module.OnnxRuntime(**settings).open(file) as engine:
        assert engine.optimized is optimized
        told = any("AMX" in note and "onnxruntime>=1.25" in note for note in engine.notes)
        assert told is (not optimized and not settings)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_missing_runtime_is_answered_with_the_install_line():
    result = run_python(
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from rctk_export.engines import ENGINES\n"
        "from rctk_kernels.errors import EngineUnavailableError\n"
        "try: ENGINES.build('onnxruntime')\n"
        "except EngineUnavailableError as error: print(error)"
    )
    assert "pip install 'rctk[ort]'" in result.stdout, result.stderr


def test_the_engine_runs_where_torch_and_onnx_are_absent(source):
    heavy = [name for name in ("torch", "onnx", "matplotlib", "pandas", "scipy") if find_spec(name)]
    result = run_python(
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from rctk_export.engine import Source\n"
        "from rctk_export.engines import ENGINES\n"
        "from rctk_export.input_spec import InputSpec\n"
        f"source = Source(path=Path({str(source.path)!r}), input=InputSpec(channels=1, height=2, width=2))\n"
        "with ENGINES.build('onnxruntime').open(source) as engine:\n"
        "    print(engine.predict(np.ones((3, 1, 2, 2), dtype=np.float32)).shape)"
    )
    assert result.stdout.strip() == "(3, 4)", result.stderr
