"""Every name of TensorRT that rctk uses exists in each generation, or is asked for before it is used.

The first half needs nothing: the list below was written from NVIDIA's Python signatures of 10.3, 10.13, 10.16 and 11.4.
The second half runs mypy against those signatures, where ``RCTK_TRT_STUBS`` names the folder that holds them.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rctk_export

ROOT = Path(rctk_export.__file__).parent
MODULES = [*sorted((ROOT / "tensorrt").glob("*.py")), ROOT / "engines" / "tensorrt.py"]
VERSIONS = ("10.3", "10.13", "10.16", "11.4")
STUBS = os.environ.get("RCTK_TRT_STUBS", "")

EVERYWHERE = {
    *(
        "Builder",
        "OnnxParser",
        "Runtime",
        "ILogger",
        "Dims",
        "__version__",
        "BuilderFlag",
        "NetworkDefinitionCreationFlag",
    ),
    *("INetworkDefinition", "IBuilderConfig", "ILayer", "ITensor", "ITimingCache"),
    *("ILogger.ERROR", "ILogger.INTERNAL_ERROR", "ILogger.WARNING", "ILogger.Severity", "ILogger.__init__"),
    *("BuilderFlag.TF32", "BuilderFlag.SPARSE_WEIGHTS", "BuilderFlag.VERSION_COMPATIBLE", "BuilderFlag.GPU_FALLBACK"),
    *("DeviceType.DLA", "MemoryPoolType.WORKSPACE", "ProfilingVerbosity.DETAILED", "LayerInformationFormat.JSON"),
    *("TensorIOMode", "TensorIOMode.INPUT", "TensorIOMode.OUTPUT", "HardwareCompatibilityLevel"),
    *("LayerType.CONVOLUTION", "LayerType.DECONVOLUTION", "LayerType.MATRIX_MULTIPLY", "LayerType.QUANTIZE"),
    *("LayerType.DEQUANTIZE", "LayerType.SHUFFLE", "LayerType.POOLING", "LayerType.IDENTITY", "LayerType.SLICE"),
}
"""Names that all four have."""
GONE_IN_11 = {
    *("BuilderFlag.INT8", "BuilderFlag.FP16", "BuilderFlag.BF16", "BuilderFlag.FP8", "BuilderFlag.INT4"),
    *("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "IInt8EntropyCalibrator2", "QuantizationFlag"),
    *("TacticSource.CUBLAS", "TacticSource.CUDNN", "IAlgorithmSelector", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS"),
}
METHODS_GONE = {
    *("int8_calibrator", "set_calibration_profile", "quantization_flags", "algorithm_selector", "dynamic_range"),
    *("set_output_type", "platform_has_fast_int8", "platform_has_fast_fp16", "platform_has_tf32", "supports_model"),
    *("parse_with_weight_descriptors", "device_memory_size", "create_execution_context_without_device_memory"),
    *("all_shape_inputs_specified", "num_bindings", "execute_async_v2", "max_workspace_size", "build_engine"),
    *("max_batch_size", "get_binding_name", "add_plugin_v2"),
}
"""Members of objects that 10.0 or 11.0 removed."""
ONLY_SOME = {
    "STRONGLY_TYPED": "kept in 11, deprecated and ignored",
    "INT8": "10.x only",
    "FP16": "10.x only",
    "BF16": "10.x only",
    "SAME_COMPUTE_CAPABILITY": "from 10.9",
}
"""Names that rctk asks for with ``optional`` or ``flag``, because a version lacks them or will."""


def trees():
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES]


def dotted(node):
    """Return ``A.B`` for ``trt.A.B``."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id == "trt" else ""


def test_the_names_that_are_written_down_exist_in_every_generation():
    used = {dotted(node) for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - {""}
    prefixes = {name.partition(".")[0] for name in EVERYWHERE}
    assert used - EVERYWHERE - prefixes == set()
    assert EVERYWHERE - used == set()
    assert not used & GONE_IN_11


def test_no_member_that_a_generation_removed_is_used():
    members = {node.attr for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert members & METHODS_GONE == set()


def test_names_that_some_lack_are_asked_for():
    asked = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"optional", "flag"}:
                asked.add(node.args[1].value if isinstance(node.args[1], ast.Constant) else ast.unparse(node.args[1]))
    computed = {
        "options.precision_rest.upper()",
        "level",
        "name",
    }  # FP16 or BF16; a level of compatibility; in flag() itself
    assert asked - computed <= set(ONLY_SOME)


def test_no_flag_is_written_as_a_number():
    """Values moved between generations; ``1 << int(member)`` is the only way that works in all."""
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"set_flag", "create_network"}:
                assert not any(isinstance(argument, ast.Constant) for argument in node.args)


def check(version, *files):
    """Run mypy on our modules and ``files`` with the signatures of one version; about a second."""
    stub = Path(STUBS) / version / "tensorrt" / "__init__.pyi"
    sources = ROOT.parent
    modules = [str(path) for path in MODULES]
    options = ("--follow-imports=skip", "--explicit-package-bases", "--namespace-packages", "--check-untyped-defs")
    quiet = ("--no-incremental", f"--cache-dir={os.devnull}", "--config-file=", "--no-error-summary")
    command = [sys.executable, "-m", "mypy", *options, *quiet, str(stub), *modules, *map(str, files)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join((str(stub.parents[1]), str(sources)))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=sources, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.mark.skipif(not STUBS, reason="RCTK_TRT_STUBS names no folder with TensorRT's signatures")
@pytest.mark.parametrize("version", VERSIONS)
def test_mypy_accepts_our_modules_and_catches_a_seeded_wrong_name(version, tmp_path):
    """One of our own modules with a name misspelt, and calls that are wrong in one generation or in all."""
    wrong = (ROOT / "tensorrt" / "build.py").read_text(encoding="utf-8")
    assert "trt.BuilderFlag.SPARSE_WEIGHTS" in wrong
    spoilt = tmp_path / "spoilt_build.py"
    spoilt.write_text(wrong.replace("trt.BuilderFlag.SPARSE_WEIGHTS", "trt.BuilderFlag.SPARSE_WEIGHT"))
    seeded = tmp_path / "seeded.py"
    seeded.write_text(
        "import tensorrt as trt\n"
        "def wrong(context: trt.IExecutionContext) -> None:\n"
        "    context.execute_async_v4(1)\n"
        "    context.set_tensor_address('images')\n"
        "    trt.BuilderFlag.INT8\n"
    )
    errors = check(version, spoilt, seeded)
    expected = ['"SPARSE_WEIGHT"', '"execute_async_v4"', "set_tensor_address"]
    expected += ['"INT8"'] if version.startswith("11") else []
    assert len(errors) == len(expected), errors
    assert all(any(text in line for line in errors) for text in expected)
    assert all("seeded.py" in line or "spoilt_build.py" in line for line in errors)
