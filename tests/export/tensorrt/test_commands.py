"""`rctk build`, `rctk inspect PLAN` and what runs a plan, as a user meets them; each fault is one line, exit code 2."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=3, height=8, width=8)


@pytest.fixture
def bundle(tmp_path, graph):
    """A bundle with the residual net as its tensorrt file, and its float parent."""
    model = graph()
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    makers = {node.output[0]: node for node in plain.graph.node}
    for node in plain.graph.node:  # every DQ is read past, so that Q and DQ lie idle
        for slot, name in enumerate(node.input):
            if name in makers and makers[name].op_type == "DequantizeLinear":
                node.input[slot] = makers[makers[name].input[0]].input[0]
    kept = [node for node in plain.graph.node if not node.op_type.endswith("antizeLinear")]
    del plain.graph.node[:]
    plain.graph.node.extend(kept)
    with BundleWriter(tmp_path / "net") as writer:
        writer.add("float", "", plain.SerializeToString())
        writer.add("int8", "tensorrt", model.SerializeToString())
        writer.commit(name="net", input=SPEC, classes=tuple("abcde"), model={}, calibration={})
    return tmp_path / "net"


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(12, dtype=np.int64) % 5)
    return tmp_path / "set.npz"


def test_build_inspect_bench_and_attack_a_plan(install, rctk, bundle, images, tmp_path):
    install("10.3.0")
    before = sorted(path.name for path in bundle.iterdir())
    done = rctk("build", "net", "--opt-batch", "4", "--max-batch", "8")
    assert done.code == 0, done.err
    assert "3 of 3 weighted layers run in int8, 3 have Q/DQ on both inputs" in done.out
    assert done.out.splitlines()[-1] == "next: rctk bench net --target tensorrt --engine tensorrt"
    assert sorted(path.name for path in bundle.iterdir()) == before  # the bundle stays the same on every machine
    files = sorted(path.name for path in (tmp_path / "net.plans").iterdir())
    assert files == ["int8-tensorrt.plan", "int8-tensorrt.plan.json", "int8-tensorrt.plan.layers.json"]
    common = ("--target", "tensorrt", "--engine", "tensorrt")
    assert "rctk build BUNDLE --engine tensorrt --role float" in rctk("bench", "net", *common).refusal
    assert rctk("build", "net", "--role", "float").code == 0
    done = rctk("bench", "net", *common, "--calls", "4", "--warmup", "1", "--no-memory")
    assert done.code == 0, done.err
    done = rctk("attack", "net", *common, "--data", images, "--on", "engine", "--attack", "square:queries=4")
    assert done.code == 0, done.err


def test_inspect_shows_a_plan_without_a_gpu(install, rctk, bundle):
    world = install("11.4.0.106")
    world.float_layers = {"conv1", "conv2"}
    assert rctk("build", "net").code == 0
    plan = "net.plans/int8-tensorrt.plan"
    world.cuda.devices, world.deserialized = 0, 0
    done = rctk("inspect", plan)
    assert done.code == 0, done.err
    assert "valid on: Orin (compute capability 8.7, GPU-00010203" in done.out
    assert "quantized by 'act1.dq' and 'w2.dq', which did not fuse with it" in done.out
    assert "note: only 1 of 3 quantized layers run in int8: this engine mostly runs in float" in done.out
    assert "logits" not in done.out.partition("layers not in int8")[2]
    assert "logits" in rctk("inspect", plan, "--layers").out.partition("runs in")[2]
    assert json.loads(rctk("inspect", plan, "--json").out)["place"]["tensorrt"] == "11.4.0.106"
    assert world.deserialized == 0


def test_inspect_refuses_a_plan_that_nobody_described(install, rctk, bundle, tmp_path):
    install("10.3.0")
    rctk("build", "net")
    plan = tmp_path / "net.plans" / "int8-tensorrt.plan"
    plan.write_bytes(b"x" * plan.stat().st_size)
    assert "not the plan that its record describes" in rctk("inspect", plan).refusal
    plan.with_name(plan.name + ".json").unlink()
    assert "nobody knows where it was built" in rctk("inspect", plan).refusal
    assert "there is no plan" in rctk("inspect", "other.plan").refusal


def test_a_bare_file_is_built_beside_itself_and_named_to_the_engine(install, rctk, source, images, tmp_path):
    install("10.13.3.9")
    s = source(name="mine.onnx")
    assert "add --input" in rctk("build", s.path).refusal
    done = rctk("build", s.path, "--input", "3x8x8", "--max-batch", "8")
    assert done.code == 0, done.err
    assert (tmp_path / "mine.plan").is_file()
    engine = f"tensorrt:plan={tmp_path / 'mine.plan'}"
    flags = ("--input", "3x8x8", "--calls", "2", "--warmup", "1", "--no-memory")
    done = rctk("bench", s.path, *flags, "--engine", engine)
    assert done.code == 0, done.err
    assert "name another with tensorrt:plan=FILE" in rctk("bench", s.path, *flags, "--engine", "tensorrt").refusal


FAULTS = [
    (("--min-batch", "4"), {}, "batches must be 1 <= min <= opt <= max"),
    (("--dla", "0"), {}, "DLA takes one batch size only"),
    (("--typing", "loose"), {}, "loose"),
    (("--hardware", "same-compute-capability"), {}, "has no SAME_COMPUTE_CAPABILITY"),
    (("--workspace-mib", "1"), {"build_error": "insufficient workspace"}, "--workspace-mib 1 may be too small: give 4"),
    ((), {"build_error": "CUDA error: out of memory"}, "--max-batch 16"),
    ((), {"load_error": "broken"}, "cannot load the plan that it has just built"),
    (("--timing-cache", "c"), {"cache_fits": False}, "delete it, or name another file with --timing-cache"),
    (("--out", "net"), {}, "is a folder; give the name of a file with --out"),
    (("--device", "3"), {}, "there is no GPU 3, this machine has 1"),
    (("--role", "twin"), {}, "twin"),
    (("--role", "evaluation"), {}, "has no evaluation file"),
]


@pytest.mark.parametrize(("flags", "changes", "text"), FAULTS, ids=[text[:20] for *_, text in FAULTS])
@pytest.mark.usefixtures("bundle")
def test_what_the_user_can_mend_is_one_line(install, rctk, tmp_path, flags, changes, text):
    world = install("10.3.0")
    for name, value in changes.items():
        setattr(world, name, value)
    assert text in rctk("build", "net", *flags).refusal
    assert not (tmp_path / "net.plans" / "int8-tensorrt.plan").exists()


def test_a_machine_without_gpu_driver_or_tensorrt_says_so(install, rctk, bundle, monkeypatch):
    world = install("10.3.0")
    world.cuda.devices = 0
    assert "NVIDIA GPU" in rctk("build", "net").refusal
    world.cuda.devices, world.cuda.driver, world.cuda.fail["cudaGetDeviceCount"] = 1, 11040, 35
    assert "driver for CUDA 11.4, runtime 12.6" in rctk("build", "net").refusal
    install("8.6.1")
    assert "TensorRT 8.6.1 is too old" in rctk("build", "net").refusal


def test_a_bundle_without_a_file_for_tensorrt_says_so(install, rctk, tmp_path, graph):
    install("10.3.0")
    with BundleWriter(tmp_path / "cpu-only") as writer:
        writer.add("float", "", graph().SerializeToString())
        writer.add("int8", "cpu", graph().SerializeToString())
        writer.commit(name="net", input=SPEC, classes=(), model={}, calibration={})
    assert (
        "no int8 file for target 'tensorrt', from which tensorrt builds; export again"
        in rctk("build", "cpu-only").refusal
    )


def test_the_file_that_score_attacks_read_gets_a_plan_of_its_own(install, rctk, bundle, graph, tmp_path):
    install("11.4.0.106")
    with BundleWriter(bundle, force=True) as writer:
        writer.add("float", "", graph().SerializeToString())
        writer.add("int8", "tensorrt", graph().SerializeToString())
        writer.add("evaluation", "tensorrt", graph().SerializeToString())
        writer.commit(name="net", input=SPEC, classes=(), model={}, calibration={})
    assert rctk("build", "net", "--role", "evaluation").code == 0
    assert (tmp_path / "net.plans" / "evaluation-tensorrt.plan").is_file()


def test_a_plan_from_another_machine_is_refused_by_every_command(install, rctk, bundle, images, tmp_path):
    install("10.16.1.11")
    assert rctk("build", "net").code == 0
    record = tmp_path / "net.plans" / "int8-tensorrt.plan.json"
    values = json.loads(record.read_text())
    values["place"]["tensorrt"] = "10.3.0"
    record.write_text(json.dumps(values))
    common = ("--target", "tensorrt", "--engine", "tensorrt")
    bench = rctk("bench", "net", *common, "--no-float-beside", "--calls", "2", "--no-memory")
    attack = rctk("attack", "net", *common, "--data", images, "--on", "engine", "--attack", "square:queries=4")
    for done in (bench, attack):
        assert "built for TensorRT 10.3.0, here is 10.16.1.11" in done.refusal
