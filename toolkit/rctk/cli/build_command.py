"""``rctk build``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rctk.cli.build_executorch import build_executorch, refuse_tensorrt_flags
from rctk.cli.console import Bars
from rctk.cli.flags import InputFlags, Switch, Whole, whole
from rctk.cli.places import check_file, check_folder
from rctk.cli.plan_tables import show_record
from rctk.deployment import Deployment, open_deployment
from rctk_export.bundle import is_bundle, read_bundle
from rctk_export.engine import Source
from rctk_export.engines.executorch_program import PROGRAM
from rctk_export.tensorrt.options import BuildOptions, Hardware, Rest, Typing
from rctk_export.tensorrt.record import PLAN, plan_path
from rctk_kernels.errors import OptionError

NO_INPUT_FLAGS = InputFlags()
DEFAULTS = BuildOptions()
BuiltRole = Literal["int8", "float", "evaluation"]
TENSORRT: Literal["tensorrt"] = "tensorrt"
TARGETS = {"tensorrt": "tensorrt", "executorch": "cpu"}
"""Which int8 file of a bundle an engine is built from."""


def build_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    engine: Literal["tensorrt", "executorch"] = TENSORRT,
    role: BuiltRole = "int8",
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    precision_rest: Rest = DEFAULTS.precision_rest,
    typing: Typing = DEFAULTS.typing,
    min_batch: Whole = DEFAULTS.min_batch,
    opt_batch: Whole = DEFAULTS.opt_batch,
    max_batch: Whole = DEFAULTS.max_batch,
    workspace_mib: Whole = DEFAULTS.workspace_mib,
    timing_cache: Path | None = None,
    optimization_level: Whole = DEFAULTS.optimization_level,
    hardware: Hardware = DEFAULTS.hardware,
    version_compatible: Switch = DEFAULTS.version_compatible,
    sparsity: Switch = DEFAULTS.sparsity,
    dla: Annotated[int | None, Parameter(converter=whole)] = DEFAULTS.dla,
    tf32: Switch = DEFAULTS.tf32,
    device: Whole = DEFAULTS.device,
    flags: InputFlags = NO_INPUT_FLAGS,
) -> None:
    """Build what an engine runs, with a record: a TensorRT plan for the GPU of this machine, or an ExecuTorch program.

    Plans come from the tensorrt file of a bundle, programs from its cpu file. For a program all flags but --role, --out
    and --opt-batch are without meaning, and refused.

    Example: rctk build model-int8 --opt-batch 1 --max-batch 64

    Args:
        path: Bundle folder, or an .onnx file with --input.
        engine: For which engine.
        role: Which file of a bundle: the int8 one, the float one, or the one that score attacks read.
        out: File for the plan or program; BUNDLE.plans/FILE.plan or .pte by default.
        precision_rest: Precision of everything that has no Q/DQ.
        typing: Strong takes every type from the file; weak lets TensorRT 10 choose.
        min_batch: Fewest images of a call.
        opt_batch: Images for which kernels are tuned; the batch that you will run. A program takes exactly so many.
        max_batch: Most images of a call; memory is planned for it.
        workspace_mib: Scratch memory that kernels may ask for, in MiB; 0 leaves it to TensorRT.
        timing_cache: File that keeps the times of kernels between builds on this machine.
        optimization_level: How long to look for fast kernels, 0 to 5.
        hardware: Which other GPUs the plan may run on; costs speed.
        version_compatible: Let other versions of the same major run the plan; costs speed.
        sparsity: Use 2:4 sparse kernels where the weights are sparse.
        dla: DLA core; layers that it cannot run go to the GPU.
        tf32: Let float32 products be rounded to 10 bits of mantissa.
        device: Number of the GPU.
        flags: Input of a bare file.
    """
    options = BuildOptions(
        precision_rest=precision_rest,
        typing=typing,
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch if engine == TENSORRT else max(max_batch, opt_batch),
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        hardware=hardware,
        version_compatible=version_compatible,
        sparsity=sparsity,
        dla=dla,
        tf32=tf32,
        device=device,
    )
    check_file(timing_cache, "--timing-cache")
    if path.suffix == PLAN:
        raise OptionError(f"{path} is a plan already; give the bundle or the .onnx file that it was built from")
    if engine != TENSORRT:
        refuse_tensorrt_flags(options, timing_cache)
    whole_bundle, suffix = is_bundle(path), PLAN if engine == TENSORRT else PROGRAM
    if whole_bundle and role == "int8" and TARGETS[engine] not in read_bundle(path).targets():
        raise OptionError(
            f"{path} has no int8 file for target '{TARGETS[engine]}', from which {engine} builds; export again with "
            f"--target {TARGETS[engine]}"
        )
    with open_deployment(path, target=TARGETS[engine] if whole_bundle else None, spec=flags.spec()) as deployment:
        source = _source(deployment, role)
        made = out or (plan_path(source.path) if whole_bundle else path).with_suffix(suffix)
        check_file(made, "--out")
        check_folder(made.parent, "--out")
        with Bars().stage(f"build {engine}"):
            show = (
                _build_plan(source, made, options, timing_cache)
                if engine == TENSORRT
                else build_executorch(source, made, options)
            )
    show()
    what = "plan" if engine == TENSORRT else "program"
    chosen = f"{engine}:{what}={made}" if out or not whole_bundle else engine
    flag = f"--target {TARGETS[engine]}" if whole_bundle else "--input ..."
    print(f"{what}: {made}\nnext: rctk bench {path} {flag} --engine {chosen}")


def _build_plan(source: Source, plan: Path, options: BuildOptions, timing_cache: Path | None) -> Callable[[], None]:
    """Build the plan, and return what prints its record."""
    from rctk_export.tensorrt.make import make_plan  # noqa: PLC0415  # here TensorRT is imported

    record = make_plan(source, plan, options, timing_cache)
    return lambda: show_record(plan, record)


def _source(deployment: Deployment, role: BuiltRole) -> Source:
    if role == "int8":
        return deployment.deployed
    if role == "float":
        return deployment.need_float()
    if deployment.evaluation is None:
        raise OptionError(f"{deployment.name} has no evaluation file: its logits are not rounded; leave --role away")
    return deployment.evaluation
