"""What makes a plan valid here and nowhere else, in a JSON file beside it; a plan from elsewhere is never loaded.

A plan holds code of the machine that runs it. So it is loaded only where a record says that this machine, or one that
its options allow, built exactly these bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rctk_export.bundle import is_bundle
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.inspector import EngineReport
from rctk_kernels.errors import EngineError, OptionError

SCHEMA = 1
PLAN = ".plan"
AMPERE = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A machine, as far as a plan cares.

    Attributes:
        tensorrt: Version.
        cuda_runtime: Version of libcudart.
        cuda_driver: Newest CUDA that the driver supports.
        gpu: Name.
        gpu_uuid: Of this very piece.
        compute_capability: Such as ``8.7``.
        system: Operating system and processor, such as ``Linux aarch64``.
    """

    tensorrt: str
    cuda_runtime: str
    cuda_driver: str
    gpu: str
    gpu_uuid: str
    compute_capability: str
    system: str


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What is known about one plan.

    Attributes:
        plan_sha256: Of the plan.
        plan_bytes: Its length.
        onnx: Name of the file that it was built from.
        onnx_sha256: Its hash.
        model_role: ``float`` or ``int8``: what that file was.
        input: Its images.
        place: Where it was built.
        typing: ``strong`` or ``weak``.
        options: Every build option.
        batches: Fewest, tuned-for and most images of a call.
        timing_cache_sha256: Of the timing cache that went in; empty for none.
        device_memory_bytes: Scratch memory of one execution context.
        report: What the inspector said.
        warnings: What TensorRT and rctk warned of.
        created: UTC, ISO 8601.
        role: Always ``plan``.
        schema: Version of this format.
    """

    plan_sha256: str
    plan_bytes: int
    onnx: str
    onnx_sha256: str
    model_role: str
    input: InputSpec
    place: Place
    typing: str
    options: Mapping[str, Any]
    batches: tuple[int, int, int]
    timing_cache_sha256: str
    device_memory_bytes: int
    report: EngineReport
    warnings: tuple[str, ...] = ()
    created: str = ""
    role: str = "plan"
    schema: int = SCHEMA

    def text(self) -> str:
        """Render as JSON; :func:`read_record` reads it back."""
        return json.dumps({**asdict(self), "input": self.input.as_dict()}, indent=2) + "\n"


def system() -> str:
    """Return operating system and processor of this machine."""
    return f"{platform.system()} {platform.machine()}"


def now() -> str:
    """Return the time for :attr:`PlanRecord.created`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def plan_path(onnx: Path) -> Path:
    """Return where the plan of an ONNX file lies: beside it, or for a file of a bundle in ``BUNDLE.plans``.

    A bundle is the same on every machine, so plans stay out of it.

    Example:
        >>> plan_path(Path("net/model.onnx")).as_posix()
        'net/model.plan'
    """
    if not is_bundle(onnx.parent):
        return onnx.with_suffix(PLAN)
    folder = onnx.parent.resolve()
    return folder.with_name(f"{folder.name}.plans") / f"{onnx.stem}{PLAN}"


def record_path(plan: Path) -> Path:
    """Return where the record of ``plan`` lies."""
    return plan.with_name(plan.name + ".json")


def layers_path(plan: Path) -> Path:
    """Return where the inspector's JSON of ``plan`` lies, as TensorRT wrote it."""
    return plan.with_name(plan.name + ".layers.json")


def read_record(plan: Path) -> PlanRecord:
    """Read the record of ``plan``; :class:`EngineError` where it is absent or damaged."""
    path = record_path(plan)
    role = next((f" --role {name}" for name in ("float", "evaluation") if plan.stem.startswith(name)), "")
    again = f"make one here with `rctk build BUNDLE --engine tensorrt{role}`, or name another with tensorrt:plan=FILE"
    if not plan.is_file():
        raise EngineError(f"there is no plan {plan}; {again}")
    if not path.is_file():
        raise EngineError(f"{plan} has no record {path.name}, so nobody knows where it was built; {again}")
    try:
        return _decode(path.read_bytes())
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}); {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OptionError, RecursionError) as error:
        raise EngineError(f"{path} is damaged or no record of a plan ({error!r:.120}); {again}") from error


def _decode(data: bytes) -> PlanRecord:
    values = json.loads(data)
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}, this rctk reads {SCHEMA}")
    known = {field.name for field in fields(PlanRecord)}
    values = {key: value for key, value in values.items() if key in known}
    values["input"] = InputSpec.from_dict(values["input"])
    values["place"] = Place(**values["place"])
    values["report"] = EngineReport.from_dict(values["report"])
    values["batches"] = _batches(values["batches"])
    values["warnings"] = tuple(values["warnings"])
    return PlanRecord(**values)


def _batches(values: Any) -> tuple[int, int, int]:
    low, tuned, high = (int(value) for value in values)
    return low, tuned, high


def refuse_elsewhere(record: PlanRecord, here: Place) -> None:
    """Raise :class:`EngineError` with the reason where a plan cannot run on ``here``."""
    for what, built, found in _differences(record, here):
        raise EngineError(
            f"the plan was built for {what} {built}, here is {found}: a plan runs only where it was built; make one "
            "here with `rctk build BUNDLE --engine tensorrt`"
        )


def _differences(record: PlanRecord, here: Place) -> list[tuple[str, str, str]]:
    built, options = record.place, record.options
    found = []
    if not _version_fits(built.tensorrt, here.tensorrt, compatible=bool(options.get("version_compatible"))):
        found.append(("TensorRT", built.tensorrt, here.tensorrt))
    if built.system != here.system:
        found.append(("the system", built.system, here.system))
    capability = [f"compute capability {place.compute_capability}" for place in (built, here)]
    hardware = options.get("hardware", "none")
    if hardware == "ampere-plus":
        if _numbers(here.compute_capability) < AMPERE:
            found.append(("Ampere or newer,", capability[0], capability[1]))
    elif built.compute_capability != here.compute_capability:
        found.append(("a GPU of", capability[0], capability[1]))
    elif hardware == "none" and built.gpu != here.gpu:
        found.append(("the GPU", built.gpu, here.gpu))
    return found


def _version_fits(built: str, here: str, *, compatible: bool) -> bool:
    """Compatible plans run on any version of their major, and those of 10 also on 11."""
    if built == here or not compatible:
        return built == here
    old, new = _numbers(built)[:1], _numbers(here)[:1]
    return old == new or (old, new) == ((10,), (11,))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def check_content(record: PlanRecord, name: str, plan: bytes, onnx_sha256: str) -> None:
    """Raise :class:`EngineError` where the plan is not the one of the record, or was built from another file.

    Args:
        record: Of the plan.
        name: What to call the plan.
        plan: Its bytes.
        onnx_sha256: Of the file that it is wanted for; empty for any.
    """
    if onnx_sha256 and onnx_sha256 != record.onnx_sha256:
        raise EngineError(
            f"{name} was built from another file (SHA-256 {record.onnx_sha256[:12]}, wanted {onnx_sha256[:12]}); run "
            "`rctk build` again"
        )
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise EngineError(f"{name} is not the plan that its record describes; run `rctk build` again")
