"""An ExecuTorch program (``.pte``) beside a JSON record of what it was made from and what runs in it. NumPy only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.record import plan_path
from rctk_kernels.errors import EngineError, OptionError

SCHEMA = 1
PROGRAM = ".pte"


class ProgramLayer(NamedTuple):
    """A weighted layer of the XNNPACK graph inside a program."""

    kind: str
    """XNNPACK's word, such as ``Conv2d``."""
    filter: tuple[int, ...]
    """Shape of its weights, ``(O, H, W, I)`` or ``(O, I)``."""
    precision: str
    """``qint8`` where images, weights and result are 8-bit integers, else the type of its result, such as ``fp32``."""

    @property
    def int8(self) -> bool:
        """Whether it computes on integers."""
        return self.precision == "qint8"


@dataclass(frozen=True, kw_only=True)
class ProgramRecord:
    """What is known about one program.

    Attributes:
        program_sha256: Of the program.
        program_bytes: Its length.
        onnx: Name of the file that it was made from.
        onnx_sha256: Its hash.
        model_role: ``float`` or ``int8``: what that file was.
        input: Its images.
        batch: Images that every run takes.
        executorch: Version that made it.
        torch: Version that exported the graph.
        layers: Weighted layers that XNNPACK runs, in order.
        outside: Operators that XNNPACK does not run: ExecuTorch's portable kernels do, slowly.
        created: UTC, ISO 8601.
        schema: Version of this format.
    """

    program_sha256: str
    program_bytes: int
    onnx: str
    onnx_sha256: str
    model_role: str
    input: InputSpec
    batch: int
    executorch: str
    torch: str
    layers: tuple[ProgramLayer, ...]
    outside: tuple[str, ...]
    created: str
    schema: int = SCHEMA

    def text(self) -> str:
        """Render as JSON; :func:`read_record` reads it back."""
        return json.dumps({**asdict(self), "input": self.input.as_dict()}, indent=2) + "\n"


def program_path(onnx: Path) -> Path:
    """Return where the program of an ONNX file lies: beside it, or for a file of a bundle in ``BUNDLE.plans``.

    Example:
        >>> program_path(Path("net/model.onnx")).as_posix()
        'net/model.pte'
    """
    return plan_path(onnx).with_suffix(PROGRAM)


def record_path(program: Path) -> Path:
    """Return where the record of ``program`` lies."""
    return program.with_name(program.name + ".json")


def read_record(program: Path) -> ProgramRecord:
    """Read the record of ``program``; :class:`EngineError` where either is absent or damaged."""
    path = record_path(program)
    role = next((f" --role {name}" for name in ("float", "evaluation") if program.stem.startswith(name)), "")
    again = f"make one with `rctk build PATH --engine executorch{role}`, or name another with executorch:program=FILE"
    for file in (program, path):
        if not file.is_file():
            raise EngineError(f"there is no {file}; {again}")
    try:
        return _decode(path.read_bytes())
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}); {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OptionError, RecursionError) as error:
        raise EngineError(f"{path} is damaged or no record of a program ({error!r:.120}); {again}") from error


def _decode(data: bytes) -> ProgramRecord:
    values = json.loads(data)
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}, this rctk reads {SCHEMA}")
    values = {field.name: values[field.name] for field in fields(ProgramRecord)}
    values["input"] = InputSpec.from_dict(values["input"])
    values["layers"] = tuple(ProgramLayer(kind, tuple(sizes), word) for kind, sizes, word in values["layers"])
    values["outside"] = tuple(values["outside"])
    return ProgramRecord(**values)


def read_program(program: Path, record: ProgramRecord, onnx_sha256: str) -> bytes:
    """Return the bytes of ``program`` if they are those of its record.

    Args:
        program: The file.
        record: What was written beside it.
        onnx_sha256: Hash of the file that it is wanted for; empty for any.
    """
    if onnx_sha256 and onnx_sha256 != record.onnx_sha256:
        raise EngineError(
            f"{program.name} was made from another file (SHA-256 {record.onnx_sha256[:12]}, wanted "
            f"{onnx_sha256[:12]}); run `rctk build` again"
        )
    content = program.read_bytes()
    if hashlib.sha256(content).hexdigest() != record.program_sha256:
        raise EngineError(f"{program.name} is not the program that its record describes; run `rctk build` again")
    return content
