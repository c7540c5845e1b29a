"""``rctk build --engine executorch``: which flags it takes, and what it prints."""

from pathlib import Path

import pytest

from rctk.cli.build_executorch import refuse_tensorrt_flags, show_program
from rctk_export.engines.executorch_program import ProgramLayer, ProgramRecord
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.options import BuildOptions
from rctk_kernels.errors import OptionError


@pytest.mark.parametrize(
    "options", [BuildOptions(), BuildOptions(opt_batch=8), BuildOptions(opt_batch=64, max_batch=64)]
)
def test_a_batch_is_all_that_a_program_asks_for(options):
    refuse_tensorrt_flags(options, None)


@pytest.mark.parametrize(
    ("options", "cache", "flag"),
    [
        (BuildOptions(tf32=True), None, "--tf32"),
        (BuildOptions(dla=0, precision_rest="fp16", min_batch=4, opt_batch=4, max_batch=4), None, "--precision-rest"),
        (BuildOptions(max_batch=16), None, "--max-batch"),
        (BuildOptions(workspace_mib=64), None, "--workspace-mib"),
        (BuildOptions(), Path("times.cache"), "--timing-cache"),
    ],
)
def test_flags_of_tensorrt_are_refused_by_name(options, cache, flag):
    with pytest.raises(OptionError, match=rf"{flag} is for TensorRT; an ExecuTorch program takes --role, --out and"):
        refuse_tensorrt_flags(options, cache)


def test_the_table_counts_int8_layers_and_names_the_others(capsys):
    record = ProgramRecord(
        program_sha256="12" * 32,
        program_bytes=2048,
        onnx="int8-cpu.onnx",
        onnx_sha256="ab" * 32,
        model_role="int8",
        input=InputSpec(channels=3, height=32, width=32),
        batch=4,
        executorch="1.5.1",
        torch="2.13.0",
        layers=(ProgramLayer("Conv2d", (2, 3, 3, 2), "qint8"), ProgramLayer("FullyConnected", (3, 8), "fp32")),
        outside=("aten::sort",),
        created="2026-01-02T03:04:05+00:00",
    )
    show_program(Path("int8-cpu.pte"), record)
    said = capsys.readouterr().out
    assert "images 3x32x32, batches of 4" in said
    assert "1 of 2 weighted layers run in int8" in said
    assert "not in int8: FullyConnected 3x8 runs in fp32" in said
    assert "XNNPACK does not run aten::sort" in said
