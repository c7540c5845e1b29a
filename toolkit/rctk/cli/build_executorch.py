"""The part of ``rctk build`` that makes ExecuTorch programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rctk.cli.console import size
from rctk_export.engine import Source
from rctk_export.tensorrt.options import BuildOptions
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk_export.engines.executorch_program import ProgramRecord

UNDERSTOOD = {"opt_batch", "max_batch"}


def refuse_tensorrt_flags(options: BuildOptions, timing_cache: Path | None) -> None:
    """Raise :class:`OptionError` for a flag that an ExecuTorch program has no use for."""
    defaults = BuildOptions(opt_batch=options.opt_batch, max_batch=options.max_batch)
    given = [
        field.name for field in fields(BuildOptions) if getattr(options, field.name) != getattr(defaults, field.name)
    ]
    given += ["timing_cache"] if timing_cache is not None else []
    if options.max_batch != max(BuildOptions().max_batch, options.opt_batch):
        given.append("max_batch")
    if given:
        flag = given[0].replace("_", "-")
        raise OptionError(f"--{flag} is for TensorRT; an ExecuTorch program takes --role, --out and --opt-batch")


def build_executorch(source: Source, program: Path, options: BuildOptions) -> Callable[[], None]:
    """Make the program, and return what prints its record."""
    from rctk_export.engines.executorch_build import build_program  # noqa: PLC0415  # here torch is imported

    record = build_program(source, program, batch=options.opt_batch)
    return lambda: show_program(program, record)


def show_program(path: Path, record: ProgramRecord) -> None:
    """Print a record."""
    shape = "x".join(str(count) for count in record.input.shape)
    print(f"{path.name}  {record.program_sha256[:16]}  {record.created}  {size(record.program_bytes)}")
    print(f"made from {record.onnx} {record.onnx_sha256[:12]}: images {shape}, batches of {record.batch}")
    print(f"made with: ExecuTorch {record.executorch}, PyTorch {record.torch}")
    int8 = sum(layer.int8 for layer in record.layers)
    print(f"XNNPACK: {int8} of {len(record.layers)} weighted layers run in int8")
    for layer in record.layers:
        if not layer.int8 and int8:
            sizes = "x".join(str(count) for count in layer.filter)
            print(f"not in int8: {layer.kind} {sizes} runs in {layer.precision}")
    if record.outside:
        print(f"note: XNNPACK does not run {', '.join(record.outside)}; portable kernels do, slowly")
