"""Programs and their records on disk; no ExecuTorch is needed for that."""

import hashlib
import importlib.util
import json
from dataclasses import replace

import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.executorch_program import (
    ProgramLayer,
    ProgramRecord,
    program_path,
    read_program,
    read_record,
    record_path,
)
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError

CONTENT = b"a program"
RECORD = ProgramRecord(
    program_sha256=hashlib.sha256(CONTENT).hexdigest(),
    program_bytes=len(CONTENT),
    onnx="int8-cpu.onnx",
    onnx_sha256="ab" * 32,
    model_role="int8",
    input=InputSpec(channels=2, height=4, width=4, mean=(0.5, 0.25), std=(0.5, 1.0)),
    batch=1,
    executorch="1.5.1",
    torch="2.13.0",
    layers=(ProgramLayer("Conv2d", (2, 3, 3, 2), "qint8"), ProgramLayer("FullyConnected", (3, 8), "fp32")),
    outside=("aten::sort",),
    created="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "int8-cpu.pte"
    path.write_bytes(CONTENT)
    record_path(path).write_text(RECORD.text())
    return path


def test_a_record_is_read_as_it_was_written(program):
    assert read_record(program) == RECORD
    assert [layer.int8 for layer in read_record(program).layers] == [True, False]


def test_the_program_of_a_bundle_lies_beside_the_bundle(tmp_path):
    bundle = tmp_path / "net-int8"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    assert program_path(bundle / "int8-cpu.onnx") == tmp_path / "net-int8.plans" / "int8-cpu.pte"


def test_a_program_is_handed_out_only_as_its_record_describes_it(program):
    assert read_program(program, RECORD, "ab" * 32) == CONTENT
    assert read_program(program, RECORD, "") == CONTENT
    with pytest.raises(EngineError, match=r"made from another file \(SHA-256 abababababab, wanted cdcd"):
        read_program(program, RECORD, "cd" * 32)
    program.write_bytes(CONTENT + b"!")
    with pytest.raises(EngineError, match="not the program that its record describes; run `rctk build` again"):
        read_program(program, RECORD, "")


@pytest.mark.parametrize(
    ("role", "hint"),
    [("int8-cpu", "executorch`"), ("float", "executorch --role float`"), ("evaluation-cpu", "executorch --role eval")],
)
def test_where_no_program_is_the_command_that_makes_it_is_named(tmp_path, role, hint):
    with pytest.raises(EngineError, match=rf"there is no .*{role}.pte; make one with .*--engine {hint}"):
        read_record(tmp_path / f"{role}.pte")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", json.dumps({"schema": 2}), RECORD.text().replace('"batch"', '"size"'), "[" * 100_000],
    ids=["empty", "list", "cut", "newer", "field missing", "nested"],
)
def test_a_damaged_record_is_one_line_with_the_next_step(program, text):
    record_path(program).write_text(text)
    with pytest.raises(EngineError, match=r"is damaged or no record of a program .* make one with `rctk build"):
        read_record(program)


def test_a_program_without_record_is_refused(program):
    record_path(program).unlink()
    with pytest.raises(EngineError, match=r"there is no .*int8-cpu.pte.json"):
        read_record(program)


def test_unknown_fields_of_a_later_rctk_are_ignored(program):
    values = json.loads(RECORD.text()) | {"colour": "blue"}
    record_path(program).write_text(json.dumps(values))
    assert read_record(program) == replace(RECORD)


@pytest.mark.skipif(importlib.util.find_spec("executorch") is not None, reason="ExecuTorch is installed here")
def test_without_the_package_the_engine_names_the_install_line(program):
    with pytest.raises(EngineUnavailableError, match=r"pip install 'rctk\[executorch\]'"):
        ENGINES.build("executorch").open(Source(path=program, input=RECORD.input))
