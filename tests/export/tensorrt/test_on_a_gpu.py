"""What only a machine with TensorRT and a GPU can show; nothing here has run yet (see docs/tensorrt.md)."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import RctkError

SPEC = InputSpec(channels=3, height=8, width=8)


def _missing():
    """Return why nothing here can run; the reason of the skip."""
    if importlib.util.find_spec("tensorrt") is None:
        return "no TensorRT"
    try:
        from rctk_export.tensorrt.here import look_around

        look_around(0)
    except RctkError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(_missing()), reason=_missing() or "TensorRT is here")]
X = np.random.default_rng(0).random((64, *SPEC.shape), dtype=np.float32)


def mirror_logits(graph, tmp_path):
    """Return what the file means on a CPU: its uint8 mirror in ONNX Runtime, unoptimised."""
    from rctk_export.quantize.plan_mirror import mirror

    onnx.save(mirror(graph()), tmp_path / "mirror.onnx")
    source = Source(path=tmp_path / "mirror.onnx", input=SPEC, role="int8", target="cpu-mirror")
    with ENGINES.build("onnxruntime:optimize=false").open(source) as engine:
        return engine.predict(X)


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt:cuda_graph=true"])
@pytest.mark.parametrize("rest", ["fp32", "fp16", "bf16"])
def test_the_engine_agrees_with_its_mirror(graph, source, make_plan, tmp_path, engine, rest):
    s = source()
    record = make_plan(s, precision_rest=rest, opt_batch=16, max_batch=16)
    assert record.report.warning == ""
    assert record.report.count("int8") == record.report.quantized == 3
    expected = mirror_logits(graph, tmp_path)
    with ENGINES.build(engine).open(s) as opened:
        found = opened.predict(X)
        assert np.array_equal(opened.predict(X), found)
        assert opened.predict(X[:5]).shape == (5, 5)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95
    # fused arithmetic may be reordered; one flipped code of the last layer's input moves a logit by its weight x 0.03
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_every_option_builds(source, make_plan, tmp_path):
    from rctk_export.tensorrt.api import optional, trt

    s, cache = source(), tmp_path / "timing.cache"
    for options in ({"sparsity": True}, {"version_compatible": True}, {"tf32": True}, {"workspace_mib": 64}):
        make_plan(s, max_batch=4, timing_cache=cache, **options)
        with ENGINES.build("tensorrt").open(s) as opened:
            assert np.isfinite(opened.predict(X[:4])).all()
    assert cache.stat().st_size > 0
    if optional(trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY") is not None:
        make_plan(s, max_batch=4, hardware="same-compute-capability")


def test_weak_typing_where_this_version_has_it(source, make_plan):
    from rctk_export.tensorrt.api import generation

    if generation()[0] >= 11:
        pytest.skip("TensorRT 11 is always strongly typed")
    assert make_plan(source(), typing="weak", precision_rest="fp16").typing == "weak"


def test_a_file_that_breaks_the_rules_is_refused_by_the_parser(graph, source, make_plan):
    model = graph()
    zero = next(t for t in model.graph.initializer if t.name == "act1.z")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.int8(3), "act1.z"))
    with pytest.raises(RctkError, match=r"cannot read|built no engine"):
        make_plan(source(model))


def test_more_images_than_the_profile_holds_are_cut_into_chunks(source, make_plan):
    s = source()
    make_plan(s, max_batch=32)
    with ENGINES.build("tensorrt").open(s) as opened:
        assert opened.predict(np.zeros((1000, *SPEC.shape), np.float32)).shape == (1000, 5)
