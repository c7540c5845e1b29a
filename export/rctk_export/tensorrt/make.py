"""Build the plan of a model file and write it down with everything that makes it valid here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rctk_export.bundle import file_sha256
from rctk_export.engine import Source
from rctk_export.tensorrt.build import build_plan
from rctk_export.tensorrt.here import look_around
from rctk_export.tensorrt.inspector import read_layers, report
from rctk_export.tensorrt.options import BuildOptions
from rctk_export.tensorrt.prepare import prepare
from rctk_export.tensorrt.record import PlanRecord, layers_path, now, record_path
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import EngineError

MAX_WARNINGS = 10
"""Different warnings of TensorRT that are kept."""


def make_plan(source: Source, out: Path, options: BuildOptions, timing_cache: Path | None = None) -> PlanRecord:
    """Build ``source`` and write the plan, its record and the inspector's JSON; an earlier plan stays until then.

    Args:
        source: ONNX file: of a bundle, or a bare one.
        out: File for the plan; its folder is made.
        options: How to build.
        timing_cache: File that keeps the times of kernels between builds on this machine; made if absent.
    """
    here = look_around(options.device)
    prepared = prepare(source, options)
    cache = timing_cache.read_bytes() if timing_cache is not None and timing_cache.is_file() else b""
    with here.cuda.on(options.device):
        built = build_plan(prepared.content, source.path.name, options, prepared.typing, cache)
    found = report(read_layers(built.layers), built.expected)
    record = PlanRecord(
        plan_sha256=hashlib.sha256(built.plan).hexdigest(),
        plan_bytes=len(built.plan),
        onnx=source.path.name,
        onnx_sha256=source.sha256 or file_sha256(source.path),
        model_role=source.role,
        input=source.input,
        place=here.place,
        typing=prepared.typing,
        options=asdict(options),
        batches=built.batches,
        timing_cache_sha256=hashlib.sha256(cache).hexdigest() if cache else "",
        device_memory_bytes=built.device_memory_bytes,
        report=found,
        warnings=tuple(_warnings(prepared.notes, found.warning, built.warnings)),
        created=now(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    if timing_cache is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        _replace(timing_cache, built.timing_cache)
    _replace(layers_path(out), built.layers.encode())
    _replace(out, built.plan)
    _replace(record_path(out), record.text().encode())  # last: a plan without its own record is refused
    return record


def _warnings(notes: Iterable[str], found: str, said: Iterable[str]) -> Iterator[str]:
    yield from notes
    if found:
        yield found
    for text in list(dict.fromkeys(said))[:MAX_WARNINGS]:
        yield f"TensorRT warned: {text[:300]}"


def _replace(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}; free some space or choose another place") from error
